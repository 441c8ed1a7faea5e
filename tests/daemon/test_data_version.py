"""A job keeps the version of the data that it began with, whatever becomes of its folder meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import write_digits
from harness import LONG, PATIENCE_S, RunningDaemon
from m1.v1 import job_pb2

RUNNING, PAUSED, QUEUED = job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_PAUSED, job_pb2.JOB_STATE_QUEUED


def add_a_stray_file(folder: Path) -> None:
    (folder / "train" / "notes.txt").write_text("what I think of these pictures")


def add_a_class(folder: Path) -> None:
    (folder / "train" / "eleven").mkdir()
    picture = next((folder / "train" / "0").iterdir())
    (folder / "train" / "eleven" / "0.png").write_bytes(picture.read_bytes())


def damage_a_picture(folder: Path) -> None:
    next((folder / "train" / "0").iterdir()).write_bytes(b"no picture any more")


CHANGES: tuple[Callable[[Path], None], ...] = (add_a_stray_file, add_a_class, damage_a_picture)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_digits(tmp_path / "digits", train_images=3, test_images=1)
    return tmp_path / "digits"


def test_a_paused_job_goes_on_exactly_whatever_was_put_into_its_folder(daemon: RunningDaemon, folder: Path) -> None:
    job = daemon.client.submit("cifar", data=str(folder), settings=LONG)
    for change in CHANGES:
        job = daemon.client.wait(job, until={RUNNING}, timeout_s=PATIENCE_S)
        assert daemon.client.wait(daemon.client.pause(job.id), until={PAUSED}, timeout_s=PATIENCE_S).state == PAUSED
        change(folder)
        job = daemon.client.resume(job.id)
        job = daemon.client.wait(job, until={RUNNING}, timeout_s=PATIENCE_S)
        assert (job.state, job.error.message, list(job.approximate)) == (RUNNING, "", []), change


def test_a_job_that_has_no_checkpoint_yet_keeps_its_version_too(held_daemon: RunningDaemon, folder: Path) -> None:
    client = held_daemon.client
    job = client.submit("cifar", data=str(folder), settings=LONG)
    add_a_stray_file(folder)  # before its turn
    client.cancel("holder")
    job = client.wait(job, until={RUNNING}, timeout_s=PATIENCE_S)
    assert (job.state, job.error.message) == (RUNNING, "")
    add_a_class(folder)
    damage_a_picture(folder)
    os.kill(job.pid, signal.SIGKILL)
    job = client.wait(job, until={QUEUED}, timeout_s=PATIENCE_S)
    job = client.wait(job, until={RUNNING}, timeout_s=PATIENCE_S)
    assert (job.state, job.error.message, job.attempt) == (RUNNING, "", 2)
