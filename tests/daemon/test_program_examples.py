"""The programs of examples/programs/, run as jobs as they are written; a pause changes nothing of what they print."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from harness import RunningDaemon
from m1.v1 import job_pb2
from m1ctl.sdk.states import FINAL, SUCCEEDED
from programs import ended, log_of

EXAMPLES = Path(__file__).parents[2] / "examples" / "programs"
PAUSED = job_pb2.JOB_STATE_PAUSED
# The framework that each needs beside torch.
NEEDS = {"hugging_face.py": "transformers", "lightning_fit.py": "lightning"}
FRAMEWORKS = [
    pytest.param(
        name, marks=pytest.mark.skipif(not importlib.util.find_spec(needs), reason=f"{needs} is not installed")
    )
    for name, needs in NEEDS.items()
]


def test_every_example_is_run_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"unchanged.py", "takes_part.py", *NEEDS}


def run_example(daemon: RunningDaemon, directory: Path, name: str, *arguments: str) -> job_pb2.Job:
    # On a machine that other tests use, two threads would wait for each other most of the time.
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return daemon.client.run(command, directory=str(directory), environment=one_thread)


def pause_at(daemon: RunningDaemon, job: job_pb2.Job, step: int) -> job_pb2.Job:
    """Pause it when it has done so many steps."""
    for response in daemon.client.watch(job.id, from_revision=job.revision + 1):
        if any(event.metrics_recorded.step >= step for event in response.events):
            break
        assert not any(event.state_changed.job.state in FINAL for event in response.events), log_of(daemon, job)
    daemon.client.pause(job.id)
    return daemon.client.wait(job, until={PAUSED})


def test_a_script_that_knows_nothing_of_us_trains_unchanged(bare: RunningDaemon, tmp_path: Path) -> None:
    job = ended(bare, run_example(bare, tmp_path, "unchanged.py", "--epochs", "2"))
    log = log_of(bare, job)
    assert job.state == SUCCEEDED, log
    assert re.search(r"Epoch 2/2 +loss [\d.]+ +accuracy \d+", log)
    assert (tmp_path / "cnn.pt").stat().st_size > 1000


def test_the_one_with_five_more_lines_is_paused_and_trains_the_same_weights(
    bare: RunningDaemon, tmp_path: Path
) -> None:
    steps = ["--steps", "1000"]
    job = run_example(bare, tmp_path, "takes_part.py", *steps)
    paused = pause_at(bare, job, 1)
    assert 0 < paused.progress.step < 1000
    bare.client.resume(job.id)
    done = ended(bare, job)
    assert (done.state, done.attempt, done.progress.step) == (SUCCEEDED, 2, 1000), log_of(bare, job)
    undisturbed = ended(bare, run_example(bare, tmp_path, "takes_part.py", *steps))
    assert log_of(bare, job) == log_of(bare, undisturbed)
    assert log_of(bare, job).startswith("weights ")


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_callback_lets_a_framework_be_paused_and_go_on(bare: RunningDaemon, tmp_path: Path, name: str) -> None:
    job = run_example(bare, tmp_path, name, "--steps", "3000")
    paused = pause_at(bare, job, 2)
    (checkpoint,) = bare.client.list_checkpoints(job.id)
    assert 0 < checkpoint.step == paused.progress.step < 3000
    bare.client.resume(job.id)
    done = ended(bare, job)
    log = log_of(bare, job)
    assert (done.state, done.attempt, done.progress.step) == (SUCCEEDED, 2, 3000), log
    assert log.rstrip().endswith("ended at step 3000")
    assert done.latest_metrics["train/loss"] < 0.1
