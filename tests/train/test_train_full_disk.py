"""A disk that is nearly full, a real one: what was trained is neither trained again nor lost."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from m1.jobdir import Want, checkpoints_path
from m1.journal import CheckpointRemoved, CheckpointWritten, Metrics, Notice, Phase, Record
from m1train.checkpoints.files import spare
from training_process import Job, assert_same, ended, exited, is_a, trained

MIB = 2**20
# Of the network of `cifar`: what its weights and two moments take, and what a checkpoint leaves free beside itself.
CHECKPOINT_MIB = 15


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, with room for one checkpoint; `resize` gives it more."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={CHECKPOINT_MIB * 3 // 2}m,mode=0700", "tmpfs", str(path)]
    if os.geteuid() or sys.platform != "linux" or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def resize(disk: Path, mib: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={mib}m", str(disk)], check=True)


def there(job: Job) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in checkpoints_path(job.directory).iterdir())


def waits(records: list[Record]) -> list[str]:
    return [r.message for r in records if isinstance(r, Notice) and "waits for space" in r.message]


def steps_trained(records: list[Record]) -> list[int]:
    return [r.step for r in records if isinstance(r, Metrics) and "train/loss" in r.values]


def is_waiting(record: Record) -> bool:
    return isinstance(record, Phase) and record.name == "wait for space"


def test_a_finished_job_waits_for_space_and_nothing_is_trained_twice(
    disk: Path, images: Path, data_root: Path, undisturbed: Job
) -> None:
    job = Job.new(disk / "job", str(images), data_root)
    with job.started() as attempt:
        attempt.wait_for(is_waiting)
        assert there(job) == [5], "the only good one is not given up before another one is durable"
        assert (disk / "job" / "checkpoints" / "step-00000005" / "manifest.json").exists()
        resize(disk, CHECKPOINT_MIB * 4)
        records = attempt.finish()
    assert_same(job, undisturbed, 10)
    assert len(waits(records)) == 1
    assert "No space left on device" in waits(records)[0]
    assert steps_trained(records) == list(range(1, 11))
    assert not any("goes on without it" in r.message for r in records if isinstance(r, Notice))


def test_a_pause_waits_for_space_too_and_a_cancel_ends_the_waiting(disk: Path, images: Path, data_root: Path) -> None:
    job = Job.new(disk / "job", str(images), data_root, epochs=1000, checkpoint_every_epochs=0)
    with job.started() as attempt:
        attempt.wait_for(trained(1))
        job.want(Want.RUN, checkpoint=1)
        attempt.wait_for(is_a(CheckpointWritten))
        job.want(Want.YIELD, checkpoint=1)
        attempt.wait_for(is_waiting)
        job.want(Want.STOP, checkpoint=1)
        records = attempt.finish()
    assert ended(records, "stopped")
    assert len(waits(records)) == 1


def test_sigterm_does_not_wait_for_space(disk: Path, images: Path, data_root: Path) -> None:
    job = Job.new(disk / "job", str(images), data_root)
    with job.started() as attempt:
        attempt.wait_for(is_waiting)
        attempt.process.send_signal(signal.SIGTERM)
        end = exited(attempt.finish())
    assert (end.outcome, end.code) == ("failed", "DISK_FULL")


def test_an_older_checkpoint_goes_first_where_there_is_no_room_for_all(
    disk: Path, images: Path, data_root: Path
) -> None:
    resize(disk, CHECKPOINT_MIB * 5 // 2)
    job = Job.new(disk / "job", str(images), data_root, keep_checkpoints=3, epochs=3, val_images=0)
    records = job.run()
    assert ended(records, "succeeded")
    assert not waits(records)
    first, second, last = [r.step for r in records if isinstance(r, CheckpointWritten)]
    assert [r.step for r in records if isinstance(r, CheckpointRemoved)] == [first]
    assert there(job) == [second, last]


@pytest.mark.parametrize(
    ("steps", "keep", "best", "needed", "expected"),
    [
        ([1, 2, 3], 1, None, False, [1, 2]),
        ([1, 2, 3], 1, 1, False, [2]),
        ([1, 2, 3], 3, None, False, [1]),
        ([1, 2, 3], 4, None, False, []),
        ([1, 2, 3], 9, None, True, [1, 2]),
        ([1, 2, 3], 9, 2, True, [1]),
        ([3], 1, None, True, []),
        ([], 1, None, True, []),
        ([1, 2, 4], 1, 4, True, [1]),
    ],
)
def test_what_may_go_for_a_new_checkpoint_is_never_the_newest_nor_the_best(
    steps: list[int], keep: int, best: int | None, needed: bool, expected: list[int]
) -> None:
    assert spare(steps, 4, keep, best, needed=needed) == expected
