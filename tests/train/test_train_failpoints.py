"""Killed at every declared place, or refused by a full disk: what was trained in the end is the same, bit for bit."""

import errno
import signal
from pathlib import Path

import pytest
from m1 import failpoints
from m1.jobdir import Want, checkpoint_path, checkpoints_path
from m1.journal import (
    Approximate,
    CheckpointWritten,
    Exited,
    JournalWriter,
    Metrics,
    Notice,
    Phase,
    Record,
    Started,
    read_journal,
)
from m1.process.journal import Journal
from training_process import Job, assert_same, ended, exited, hashes, pure_metrics

STEPS = 15
# At which visits of a place the process is killed: before the first checkpoint stands, and after; the first elsewhere.
VISITS = {
    "before.journal": [1, 14],
    "within.journal": [2, 14],
    "after.journal": [1, 14],
    "before.checkpoint": [1, 3],
    "after.weights": [2],
    "after.optimizer": [2],
    "before.manifest": [2],
    "before.rename": [2],
    "after.rename": [1, 2],
    "after.checkpoint": [2],
    "after.step": [3, 5, 8, 15],
    "before.validated": [1, 2],
}
PLACES = [f"{name}:{visit}" for name in failpoints.TRAINING for visit in VISITS.get(name, [1])]


def new(directory: Path, images: Path, data_root: Path) -> Job:
    """Three epochs of 5 steps, of whose checkpoints not all are kept."""
    return Job.new(directory, str(images), data_root, epochs=3, keep_checkpoints=1)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory, images: Path, data_root: Path) -> Job:
    """The job that nobody kills."""
    job = new(tmp_path_factory.mktemp("jobs") / "untouched", images, data_root)
    job.run()
    return job


def there(job: Job) -> set[str]:
    return {path.name for path in checkpoints_path(job.directory).iterdir()}


def trained_steps(records: list[Record]) -> set[int]:
    return {r.step for r in records if isinstance(r, Metrics) and "train/loss" in r.values}


@pytest.mark.parametrize("place", PLACES)
def test_killed_at_any_declared_place_a_job_ends_with_the_same_bits(
    place: str, tmp_path: Path, images: Path, data_root: Path, untouched: Job
) -> None:
    fresh = place.startswith("before.cache.")  # only who reads the dataset gets there
    job = new(tmp_path / "job", images, tmp_path / "data" if fresh else data_root)
    with job.started(place) as attempt:
        attempt.finish()
    assert attempt.process.returncode == -signal.SIGKILL, (job.directory / "log").read_text()
    job.run()
    assert_same(job, untouched, STEPS)
    assert there(job) == there(untouched), "no temporary one, and the same ones kept"


def test_on_two_threads_a_killed_job_ends_with_the_same_bits(tmp_path: Path, images: Path, data_root: Path) -> None:
    untouched = Job.new(tmp_path / "untouched", str(images), data_root, threads=2)
    untouched.run()
    job = Job.new(tmp_path / "job", str(images), data_root, threads=2)
    job.run("after.step:8")
    started = job.run()[0]
    assert isinstance(started, Started)
    assert started.resumed_from_step == 5
    assert_same(job, untouched, 10)


@pytest.mark.parametrize("place", ["before.checkpoint", "after.weights", "before.manifest", "before.rename"])
def test_a_full_disk_stops_a_checkpoint_and_not_the_training(
    place: str, tmp_path: Path, images: Path, data_root: Path, untouched: Job
) -> None:
    job = new(tmp_path / "job", images, data_root)
    records = job.run(f"{place}:1-2=ENOSPC")
    assert_same(job, untouched, STEPS)
    assert [r.step for r in records if isinstance(r, CheckpointWritten)] == [15]
    said = [r.message for r in records if isinstance(r, Notice) and r.severity == "error"]
    assert [message.partition(" could")[0] for message in said] == [
        "the checkpoint of step 5",
        "the checkpoint of step 10",
    ]
    assert all("No space left on device" in m and "the training goes on without it" in m for m in said)
    assert there(job) == {"step-00000015"}


def test_a_full_disk_costs_metrics_and_says_how_many_but_nothing_that_matters(
    tmp_path: Path, images: Path, data_root: Path, untouched: Job
) -> None:
    job = new(tmp_path / "job", images, data_root)
    records, expected = job.run("within.journal:8-30=ENOSPC"), untouched.journals()
    assert exited(records) == Exited("succeeded", step=STEPS)
    assert hashes(job, STEPS) == hashes(untouched, STEPS)
    lost = sorted(trained_steps(expected) - trained_steps(records))
    assert lost
    (notice,) = (r for r in records if isinstance(r, Notice) and r.severity == "warning")
    assert f"the metrics of {len(lost)} steps are lost, from step {lost[0]} to step {lost[-1]}" in notice.message
    evaluated = [r for r in expected if isinstance(r, Metrics) and "train/loss" not in r.values]
    assert [r for r in records if isinstance(r, Metrics) and "train/loss" not in r.values] == evaluated
    assert [r.step for r in records if isinstance(r, CheckpointWritten)] == [5, 10, 15]


def test_the_last_record_waits_for_the_disk_until_the_process_is_told_to_go(job: Job) -> None:
    with job.started("before.journal:5=ENOSPC") as attempt:
        attempt.wait_for_log(" succeeded")
        job.want(Want.STOP)
        records = attempt.finish()
    assert not any(isinstance(r, Exited) for r in records)
    assert "of the journal not written" in (job.directory / "log").read_text()


def test_a_half_written_record_is_taken_back_before_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal-1"
    writer = JournalWriter(path)
    journal = Journal(writer)
    journal.append(Started(1, None))
    whole = path.read_bytes()
    monkeypatch.setattr("m1.journal._SPLIT", True)
    monkeypatch.setattr("m1.journal.reach", failpoints._Failpoint(failpoints._arm("within.journal:1-3=ENOSPC")))
    with pytest.raises(OSError, match="No space left") as refused:
        writer.append(Phase("read data"))
    assert refused.value.errno == errno.ENOSPC
    assert path.read_bytes() == whole
    journal.append(Metrics(1, 0, {"train/loss": 1.0}))
    journal.append(Notice("info", "owed"))
    assert path.read_bytes() == whole
    journal.append(Notice("info", "after it"))
    _, owed, lost, after = (entry.record for entry in read_journal(path, 0))
    assert (owed, after) == (Notice("info", "owed"), Notice("info", "after it"))
    assert isinstance(lost, Notice)
    assert "the metrics of 1 step are lost, from step 1 to step 1" in lost.message


def test_what_is_at_risk_is_bounded_in_time_and_that_changes_no_bit(
    tmp_path: Path, images: Path, data_root: Path, untouched: Job
) -> None:
    job = Job.new(
        tmp_path / "job",
        str(images),
        data_root,
        epochs=3,
        keep_checkpoints=1,
        checkpoint_every_s=0.001,
        checkpoint_every_epochs=0,
    )
    job.run("after.step:8")
    started = job.run()[0]
    assert isinstance(started, Started)
    assert started.resumed_from_step is not None
    assert started.resumed_from_step >= 5, "one is written while the next one waits and a third is copied"
    assert_same(job, untouched, STEPS)


def test_a_checkpoint_begins_another_job_in_another_home(
    tmp_path: Path, images: Path, data_root: Path, untouched: Job
) -> None:
    first = new(tmp_path / "first", images, data_root)
    first.want(Want.YIELD, checkpoint=4)
    first.run()
    first.want(Want.RUN, checkpoint=5)
    first.run("after.step:8")
    (name,) = there(first)
    job = new(tmp_path / "elsewhere", images, tmp_path / "data")
    checkpoints_path(job.directory).mkdir()
    (checkpoints_path(first.directory) / name).rename(checkpoints_path(job.directory) / name)
    job.want(Want.RUN, checkpoint=1)
    records = job.run()
    started, written = records[0], [r for r in records if isinstance(r, CheckpointWritten)]
    assert isinstance(started, Started)
    assert started.resumed_from_step == 5
    assert {r.request for r in written} == {1}, "what the other job was asked for is not this job's"
    assert not any(r.approximate for r in written)
    assert ended(records, "succeeded")
    assert hashes(job, STEPS) == hashes(untouched, STEPS)
    found, expected = pure_metrics(records), pure_metrics(untouched.journals())
    assert found == {key: value for key, value in expected.items() if key[0] > 5}


def test_a_best_checkpoint_that_stayed_elsewhere_is_not_the_best_here(
    tmp_path: Path, images: Path, data_root: Path, untouched: Job
) -> None:
    job = new(tmp_path / "job", images, data_root)
    job.run("after.step:13")
    best = {r.step for r in job.journals() if isinstance(r, CheckpointWritten) and r.best}
    assert best
    newest = max(there(job))
    for name in there(job) - {newest}:
        checkpoint_path(job.directory, int(name.removeprefix("step-"))).rename(tmp_path / name)
    records = job.run()
    written = [r for r in records if isinstance(r, CheckpointWritten)]
    chosen = max(written, key=lambda r: (r.metrics["val/accuracy"], -r.step)).step
    assert there(job) == {f"step-{chosen:08d}", "step-00000015"}


def test_a_job_that_goes_on_under_other_settings_stays_approximate(
    tmp_path: Path, images: Path, data_root: Path
) -> None:
    job = new(tmp_path / "job", images, data_root)
    job.run("after.step:8")
    changed = Job.new(tmp_path / "changed", str(images), data_root, epochs=3, lr=0.01)
    checkpoints_path(job.directory).rename(checkpoints_path(changed.directory))
    differing = [Approximate(["lr was 0.001, is 0.01"])]
    for failpoint in ("after.step:7", ""):
        records = changed.run(failpoint)
        assert [r for r in records if isinstance(r, Approximate)] == differing
    assert ended(records, "succeeded")
    assert all(r.approximate for r in records if isinstance(r, CheckpointWritten))
