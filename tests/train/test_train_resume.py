"""Interrupted anywhere and gone on: the same weights and the same pure metrics as if nothing had happened."""

import json
import signal
from pathlib import Path

import pytest
from m1.jobdir import Want, checkpoint_path, checkpoints_path, result_path
from m1.journal import (
    CheckpointRemoved,
    CheckpointWritten,
    Continued,
    Exited,
    Held,
    Metrics,
    Notice,
    Phase,
    Plan,
    Result,
    Started,
)
from training_process import Job, assert_same, ended, exited, is_a, trained, weights

STEPS = 10


def test_an_undisturbed_job_says_all_that_it_does(undisturbed: Job) -> None:
    records = undisturbed.journals()
    assert exited(records) == Exited("succeeded", step=STEPS)
    assert isinstance(records[0], Started)
    assert records[0].resumed_from_step is None
    assert [r for r in records if isinstance(r, Plan)] == [Plan(0, 0, STEPS, 2)]
    by_step = [r for r in records if isinstance(r, Metrics) and "train/loss" in r.values]
    assert [r.step for r in by_step] == list(range(1, STEPS + 1))
    assert [r.epoch for r in by_step] == [0, 0, 0, 0, 1, 1, 1, 1, 1, 2]
    assert set(by_step[0].values) == {
        "train/loss",
        "train/accuracy",
        "train/lr",
        "train/grad_norm",
        "train/samples_per_s",
        "train/seconds/data",
        "train/seconds/forward",
        "train/seconds/backward",
        "train/seconds/optimizer",
    }
    others = [(r.step, r.epoch, set(r.values)) for r in records if isinstance(r, Metrics) and r not in by_step]
    validation = {"val/loss", "val/accuracy"}
    assert others == [(5, 1, validation), (10, 2, validation), (10, 2, {"test/loss", "test/accuracy"})]
    phases = [r.name for r in records if isinstance(r, Phase) and r.total == 0]
    assert phases == ["read data", "train", "validate", "train", "validate", "test"]
    results = {r.name: r for r in records if isinstance(r, Result)}
    assert {"classes", "confusion"} <= set(results)
    for name, result in results.items():
        file = result_path(undisturbed.directory, name, result.form)
        assert (result.step, result.size_bytes, result.truncated) == (STEPS, file.stat().st_size, "")
    confusion = json.loads(result_path(undisturbed.directory, "confusion", "table").read_text())
    assert sum(count for _, _, count in confusion["rows"]) == 30
    classes = json.loads(result_path(undisturbed.directory, "classes", "table").read_text())
    assert [row[0] for row in classes["rows"]] == [str(i) for i in range(10)]


def test_a_checkpoint_stands_after_every_epoch_with_its_validation(undisturbed: Job) -> None:
    written = [r for r in undisturbed.journals() if isinstance(r, CheckpointWritten)]
    assert [(r.step, r.epoch, set(r.metrics)) for r in written] == [
        (5, 1, {"val/loss", "val/accuracy"}),
        (10, 2, {"val/loss", "val/accuracy"}),
    ]
    for record in written:
        files = list(checkpoint_path(undisturbed.directory, record.step).iterdir())
        assert sum(file.stat().st_size for file in files) == record.size_bytes
        manifest = json.loads((checkpoint_path(undisturbed.directory, record.step) / "manifest.json").read_text())
        assert manifest["files"]["weights.safetensors"]["sha256"] == record.weights_sha256


@pytest.mark.parametrize("step", [3, 7])
def test_a_killed_job_goes_on_to_the_same_weights(job: Job, undisturbed: Job, step: int) -> None:
    with job.started() as attempt:
        attempt.wait_for(trained(step))
        if step > 5:
            attempt.wait_for(is_a(CheckpointWritten))
        attempt.kill()
    started = job.run()[0]
    assert isinstance(started, Started)
    assert started.resumed_from_step == (5 if step > 5 else None)
    assert_same(job, undisturbed, STEPS)


def test_a_job_that_yields_within_an_epoch_goes_on_from_that_step(job: Job, undisturbed: Job) -> None:
    with job.started() as attempt:
        attempt.wait_for(trained(2))
        job.want(Want.YIELD)
        records = attempt.finish()
    assert ended(records, "yielded")
    written = records[-2]
    assert isinstance(written, CheckpointWritten)
    assert attempt.process.returncode == 0
    job.want(Want.RUN)
    started = job.run()[0]
    assert isinstance(started, Started)
    assert started.resumed_from_step == written.step
    assert written.step % 5
    assert_same(job, undisturbed, STEPS)


def test_a_job_that_yields_in_a_validation_validates_again(job: Job, undisturbed: Job) -> None:
    with job.started() as attempt:
        attempt.wait_for(lambda r: r == Phase("validate"))
        job.want(Want.YIELD)
        attempt.finish()
    job.want(Want.RUN)
    job.run()
    assert_same(job, undisturbed, STEPS)


def test_a_termination_by_the_system_is_a_yield(job: Job, undisturbed: Job) -> None:
    with job.started() as attempt:
        attempt.wait_for(trained(1))
        attempt.process.send_signal(signal.SIGTERM)
        assert ended(attempt.finish(), "yielded")
    job.run()
    assert_same(job, undisturbed, STEPS)


def test_a_held_job_stands_makes_checkpoints_and_continues(job: Job, undisturbed: Job) -> None:
    with job.started() as attempt:
        attempt.wait_for(trained(2))
        job.want(Want.HOLD)
        held = attempt.wait_for(is_a(Held))
        assert isinstance(held, Held)
        job.want(Want.HOLD, checkpoint=1)
        first = attempt.wait_for(is_a(CheckpointWritten))
        job.want(Want.HOLD, checkpoint=2)
        second = attempt.wait_for(lambda r: isinstance(r, CheckpointWritten) and r.request == 2)
        assert isinstance(first, CheckpointWritten)
        assert isinstance(second, CheckpointWritten)
        assert (first.step, first.request, second.step) == (held.step, 1, held.step)
        assert first.weights_sha256 == second.weights_sha256
        assert not [r for r in attempt.records() if isinstance(r, Metrics) and r.step > held.step]
        job.want(Want.RUN, checkpoint=2)
        assert attempt.wait_for(is_a(Continued)) == Continued(held.step)
        attempt.finish()
    assert_same(job, undisturbed, STEPS)


def test_a_checkpoint_on_request_is_made_while_it_trains(job: Job) -> None:
    with job.started() as attempt:
        attempt.wait_for(trained(1))
        job.want(Want.RUN, checkpoint=1)
        written = attempt.wait_for(is_a(CheckpointWritten))
        assert isinstance(written, CheckpointWritten)
        assert written.request == 1
        assert written.step % 5
        assert exited(attempt.finish()) == Exited("succeeded", step=STEPS)
    requests = [r.request for r in attempt.records() if isinstance(r, CheckpointWritten)]
    assert requests == [1, 1, 1], "later ones are of no newer request"


def test_a_stopped_job_leaves_without_a_checkpoint(job: Job) -> None:
    with job.started() as attempt:
        attempt.wait_for(trained(1))
        job.want(Want.STOP, checkpoint=9)
        records = attempt.finish()
    assert ended(records, "stopped")
    assert not any(isinstance(r, CheckpointWritten) for r in records)


def test_a_held_job_can_be_stopped(job: Job) -> None:
    job.want(Want.HOLD)
    with job.started() as attempt:
        attempt.wait_for(is_a(Started))
        job.want(Want.STOP)
        assert ended(attempt.finish(), "stopped")


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_is_used(job: Job, undisturbed: Job) -> None:
    with job.started() as attempt:
        attempt.wait_for(trained(6))
        attempt.wait_for(is_a(CheckpointWritten))
        job.want(Want.YIELD)
        attempt.finish()
    newest = max(weights(attempt.records()))
    path = checkpoint_path(job.directory, newest) / "optimizer.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    job.want(Want.RUN)
    records = job.run()
    started = records[0]
    assert isinstance(started, Started)
    assert started.resumed_from_step == 5
    (notice,) = (r for r in records if isinstance(r, Notice) and r.severity == "warning")
    assert f"damaged-step-{newest:08d}" in notice.message
    assert "damaged" in notice.message
    assert CheckpointRemoved(newest) in records
    assert (checkpoints_path(job.directory) / f"damaged-step-{newest:08d}" / path.name).read_bytes() == content
    assert_same(job, undisturbed, STEPS)


def test_what_a_killed_writer_left_is_removed(job: Job, undisturbed: Job) -> None:
    left = checkpoints_path(job.directory) / ".tmp-left"
    left.mkdir(parents=True)
    (left / "weights.safetensors").write_bytes(b"half")
    job.run()
    assert not left.exists()
    assert_same(job, undisturbed, STEPS)


def test_only_the_newest_and_the_best_are_kept(tmp_path: Path, images: Path, data_root: Path) -> None:
    job = Job.new(tmp_path / "job", str(images), data_root, epochs=5, keep_checkpoints=1, batch_size=64)
    records = job.run()
    written = [r for r in records if isinstance(r, CheckpointWritten)]
    best = max(written, key=lambda r: (r.metrics["val/accuracy"], -r.step)).step
    there = {int(path.name.removeprefix("step-")) for path in checkpoints_path(job.directory).iterdir()}
    assert there == {best, 10}
    removed = {r.step for r in records if isinstance(r, CheckpointRemoved)}
    assert removed == {2, 4, 6, 8, 10} - there
    assert [r.step for r in written if r.best][-1] == best
