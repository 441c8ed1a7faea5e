"""Jobs that measure: real training processes, briefly."""

import time
from pathlib import Path

import pytest
from m1.jobdir import Spec, Want, write_spec
from m1.journal import Continued, Finding, Findings, Held, Metrics, Record, read_journal
from m1train.measurements.claims import Trials
from m1train.measurements.declared import CLAIMS
from m1train.measurements.engine import findings as engine_findings
from training_process import Job, ended, exited, is_a

# What is enough for some of the works, for the largest of them too, and what is not enough for torch.
SOME_MB, MORE_MB, TOO_FEW_MB = 700, 1300, 100
PLACES, PARTS = ("cpu", "gpu"), ("launch", "compute")


def measuring(directory: Path, recipe: str, **settings: object) -> Job:
    directory.mkdir()
    spec = Spec(
        kind="measurement",
        job_id=directory.name,
        recipe=recipe,
        data_root=str(directory),
        settings=settings,  # type: ignore[arg-type]
    )
    write_spec(directory, spec)
    return Job(directory)


def findings(records: list[Record]) -> dict[str, Finding]:
    """What it had found at its end, by key."""
    last = [record for record in records if isinstance(record, Findings)][-1]
    return {finding.key: finding for finding in last.findings}


@pytest.mark.parametrize("limit_mb", [SOME_MB, MORE_MB])
def test_stress_works_for_its_time_and_never_takes_more_memory_than_it_may(tmp_path: Path, limit_mb: int) -> None:
    job = measuring(tmp_path / "job", "stress", duration_s=2, memory_limit_mb=limit_mb)
    with job.started() as attempt:
        attempt.wait_for(is_a(Metrics))
        began = time.monotonic()
        records = attempt.finish()
        took_s = time.monotonic() - began

    assert ended(records, "succeeded")
    assert took_s < 2 + 10  # the turn that was begun last, and the way out, on a busy machine
    found = findings(records)
    memory = found["stress/peak_memory"].value
    assert memory is not None
    assert 0 < memory <= limit_mb
    measured = {key for key, finding in found.items() if finding.value is not None}
    assert {"stress/matmul_float32", "stress/load"} <= measured
    assert all(finding.note for key, finding in found.items() if key not in measured)


def test_stress_says_how_much_memory_it_takes_at_least(tmp_path: Path) -> None:
    job = measuring(tmp_path / "job", "stress", memory_limit_mb=TOO_FEW_MB)
    end = exited(job.run())

    assert (end.outcome, end.code) == ("failed", "INVALID_SETTING")
    assert f"memory_limit_mb={TOO_FEW_MB}" in end.message
    assert "MB at least" in end.hint


def test_stress_is_held_goes_on_and_is_stopped_within_a_second(tmp_path: Path) -> None:
    job = measuring(tmp_path / "job", "stress", duration_s=600, load=0.3, work="fft")
    with job.started() as attempt:
        attempt.wait_for(is_a(Metrics))
        job.want(Want.HOLD)
        attempt.wait_for(is_a(Held))
        before = len([record for record in attempt.records() if isinstance(record, Metrics)])
        job.want(Want.RUN)
        attempt.wait_for(is_a(Continued))
        attempt.wait_for(is_a(Metrics), before + 1)
        began = time.time()
        job.want(Want.STOP)
        records = attempt.finish()
        *_, last = read_journal(attempt.journal, 0, 2**28)

    assert ended(records, "stopped")
    assert last.time - began < 1  # what follows is the end of a process that has torch loaded


def test_a_trial_that_was_held_is_made_again() -> None:
    class HeldOnce:
        answers = iter([False, False, True])

        def heed(self) -> bool:
            return next(self.answers, False)

    trials = Trials(HeldOnce(), seconds=0, batch=8)  # type: ignore[arg-type]
    made: list[int] = []

    def action() -> None:
        made.append(1)
        trials.heed()
        trials.heed()

    trials.once(action)

    assert len(made) == 2


def test_every_rule_is_measured_or_says_why_not(tmp_path: Path) -> None:
    records = measuring(tmp_path / "job", "claims", seconds_per_rule=0.1, batch_size=8).run()

    assert ended(records, "succeeded")
    found = findings(records)
    assert {key.split("/")[0] for key in found} == set(CLAIMS)
    for finding in found.values():
        assert finding.claimed
        assert finding.title
        if finding.value is None:
            assert finding.note.startswith(("not measured", "none:"))
        else:
            assert finding.n >= 3


def test_one_rule_can_be_measured_alone(tmp_path: Path) -> None:
    job = measuring(tmp_path / "job", "claims", only="small", seconds_per_rule=0.1)
    assert set(findings(job.run())) == {f"small/{device}_{part}" for device in PLACES for part in PARTS}


def test_the_engine_is_timed_beside_the_plain_script(tmp_path: Path) -> None:
    job = measuring(tmp_path / "job", "engine", rounds=2, steps=1, batch_size=8)
    records = job.run()

    assert ended(records, "succeeded")
    found = findings(records)
    assert {"engine/plain", "engine/float32", "engine/bfloat16"} <= set(found)
    assert all(finding.value and finding.n == 2 for finding in found.values())


@pytest.mark.parametrize(("device", "has_goal"), [("cpu", True), ("mps", False)])
def test_the_engine_has_a_goal_over_the_plain_script_only_on_the_same_device(device: str, has_goal: bool) -> None:
    ways = ("plain", "memory_float32", "memory_bfloat16", "float32", "bfloat16")
    found = {finding.key: finding for finding in engine_findings({way: [1.0, 2.0] for way in ways}, device)}
    assert ("goal" in found["engine/float32_over_memory_float32"].note) is True
    for way in ("float32", "bfloat16"):
        over_plain = found[f"engine/{way}_over_plain"]
        assert over_plain.note.startswith("goal: ") is has_goal
        assert (f"on {device}, over" in over_plain.title) is not has_goal
    assert ("on cpu" in found["engine/plain"].title) is not has_goal
