"""Checkpoints that do not belong where they lie; and a checkpoint whose writing takes long."""

import os
import subprocess
import sys
from pathlib import Path

from m1.jobdir import checkpoint_path, checkpoints_path
from m1.journal import Approximate, CheckpointWritten, Notice, Started
from training_process import DEADLINE_S, Job, assert_same, ended, exited, weights

STEPS = 10


def test_a_checkpoint_under_another_step_s_name_is_set_aside_and_the_bits_are_the_same(
    job: Job, undisturbed: Job
) -> None:
    job.run("after.step:8")
    checkpoint_path(job.directory, 5).rename(checkpoint_path(job.directory, 6))
    records = job.run()
    started = records[0]
    assert isinstance(started, Started)
    assert started.resumed_from_step is None
    (told,) = [r.message for r in records if isinstance(r, Notice) and "damaged-step-00000006" in r.message]
    assert "state.json is of step 5" in told
    assert_same(job, undisturbed, STEPS)


def test_a_checkpoint_of_another_job_is_gone_on_from_as_approximate_and_what_differs_is_named(
    tmp_path: Path, images: Path, data_root: Path, job: Job
) -> None:
    other = Job.new(tmp_path / "other", str(images), data_root, seed=9)
    other.run("after.step:8")
    checkpoints_path(job.directory).mkdir()
    checkpoint_path(other.directory, 5).rename(checkpoint_path(job.directory, 5))
    records = job.run()
    assert ended(records, "succeeded")
    assert [r.differing for r in records if isinstance(r, Approximate)] == [["seed was 9, is 0"]]
    assert all(r.approximate for r in records if isinstance(r, CheckpointWritten) and r.step > 5)


# As `m1train run`, but the file work of step 5's checkpoint does not begin before step 8 has been trained.
HELD_UP = """
import sys, threading, time
from pathlib import Path
from m1.journal import Metrics, journal_path, read_journal
from m1train.checkpoints import files as checkpoint
from m1train.commands.run import run_directory

write, journal = checkpoint.write, journal_path(Path(sys.argv[1]), 1)

def steps():
    records = [entry.record for entry in read_journal(journal, 0, 2**28)]
    return max([record.step for record in records if isinstance(record, Metrics)], default=0)

def held_up(directory, state, *tensors):
    end = time.monotonic() + 60
    while state.step == 5 and steps() < 8:
        if time.monotonic() > end:
            raise OSError("no step was trained meanwhile")
        threading.Event().wait(0.01)
    return write(directory, state, *tensors)

checkpoint.write = held_up
sys.exit(run_directory(sys.argv[1], 1))
"""


def test_the_steps_go_on_while_the_checkpoint_of_an_earlier_one_is_not_written_yet(job: Job, undisturbed: Job) -> None:
    job.attempt = 1
    command = [sys.executable, "-c", HELD_UP, str(job.directory)]
    with open(job.directory / "log", "ab") as log:
        subprocess.run(command, check=True, timeout=DEADLINE_S, stdout=log, stderr=log, env=os.environ)
    records = job.journals()
    assert exited(records).outcome == "succeeded"
    assert not [record for record in records if isinstance(record, Notice) and record.severity == "error"]
    # What was written after step 8 is the state after step 5.
    assert weights(records) == weights(undisturbed.journals())
    assert_same(job, undisturbed, STEPS)
