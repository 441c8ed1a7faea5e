"""Faults of the machine that no job is to blame for: said once, waited for, and the jobs go on."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest
from harness import PATIENCE_S, RunningDaemon
from m1.errors import ExitCode, M1Error, Reason
from m1.v1 import event_pb2, job_pb2
from m1d.processes.spawn import broken_installation, refusal
from proof import stored_events

QUEUED, SUCCEEDED = job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_SUCCEEDED
SHORT: dict[str, bool | float | str] = {"epochs": 1, "batch_size": 40, "seed": 7}


@pytest.fixture
def own_python(quiet_daemon: RunningDaemon, tmp_path: Path) -> Path:
    """A daemon that runs on an interpreter and packages that a test can take away: its environment's directory."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    (tmp_path / "lib").symlink_to(Path(sys.prefix, "lib"))
    (tmp_path / "pyvenv.cfg").write_bytes(Path(sys.prefix, "pyvenv.cfg").read_bytes())
    quiet_daemon.python = str(tmp_path / "bin" / "python")
    quiet_daemon.start()
    return tmp_path


def errors_told(daemon: RunningDaemon) -> list[str]:
    return [
        event.notice_raised.message
        for event in stored_events(daemon.home)
        if event.notice_raised.severity == event_pb2.SEVERITY_ERROR
    ]


def wait_for_fault(daemon: RunningDaemon) -> str:
    """Watch until a fault is told; what the daemon says of itself then."""
    for answer in daemon.client.watch(from_revision=1, timeout_s=PATIENCE_S):
        if any(event.notice_raised.severity == event_pb2.SEVERITY_ERROR for event in answer.events):
            break
    return daemon.client.system_info().fault


def test_jobs_wait_for_an_interpreter_that_has_gone_and_go_on_when_it_is_back(
    quiet_daemon: RunningDaemon, own_python: Path
) -> None:
    client = quiet_daemon.client
    client.recipes()
    python = own_python / "bin" / "python"
    python.rename(own_python / "away")
    jobs = [client.submit("cifar", data="few", settings=SHORT, name=name) for name in ("a", "b", "c")]
    assert f'the Python that m1d runs on, "{python}", cannot be started' in wait_for_fault(quiet_daemon)

    # What needs a process says so in a sentence; the rest is answered as ever.
    with pytest.raises(M1Error) as caught:
        client.prepare_dataset("/")
    assert (caught.value.reason, caught.value.exit_code) == (Reason.PROCESS_NOT_STARTED, ExitCode.ERROR)
    assert "No such file" in str(caught.value)
    assert [client.get(job.id).state for job in jobs] == [QUEUED] * 3
    assert "cannot be started" in quiet_daemon.m1ctl("daemon", "status").stdout
    assert client.recipes()

    (own_python / "away").rename(python)
    ended = [client.wait(job, timeout_s=PATIENCE_S) for job in jobs]
    assert [(job.state, job.attempt) for job in ended] == [(SUCCEEDED, 1)] * 3
    assert len(errors_told(quiet_daemon)) == 1
    assert client.system_info().fault == ""


def test_jobs_wait_for_packages_that_have_gone_and_go_on_when_they_are_back(
    quiet_daemon: RunningDaemon, own_python: Path
) -> None:
    client = quiet_daemon.client
    (own_python / "lib").rename(own_python / "away")
    with pytest.raises(M1Error) as caught:
        client.recipes()
    assert caught.value.reason is Reason.PROCESS_NOT_STARTED
    with pytest.raises(M1Error) as caught:
        client.submit("cifar", data="few", settings=SHORT)
    assert caught.value.reason in {Reason.TORCH_MISSING, Reason.PROCESS_NOT_STARTED}
    assert "\n" not in str(caught.value)

    (own_python / "away").rename(own_python / "lib")
    client.recipes()
    holder = client.submit("cifar", data="few", settings={**SHORT, "epochs": 10_000})
    client.wait(holder, until={job_pb2.JOB_STATE_RUNNING}, timeout_s=PATIENCE_S)
    job = client.submit("cifar", data="few", settings=SHORT)
    (own_python / "lib").rename(own_python / "away")
    client.cancel(holder.id)
    assert "No module named 'm1train'" in wait_for_fault(quiet_daemon)
    assert client.get(job.id).state == QUEUED

    (own_python / "away").rename(own_python / "lib")
    ended = client.wait(job, timeout_s=PATIENCE_S)
    assert (ended.state, ended.error.code) == (SUCCEEDED, "")
    assert len(errors_told(quiet_daemon)) == 1


def test_a_job_waits_for_a_system_that_refuses_another_process(quiet_daemon: RunningDaemon) -> None:
    quiet_daemon.start(M1D_FAILPOINT="before.spawn:1-1=EAGAIN")
    job = quiet_daemon.client.submit("cifar", data="few", settings=SHORT)
    ended = quiet_daemon.client.wait(job, timeout_s=PATIENCE_S)
    assert (ended.state, ended.attempt) == (SUCCEEDED, 1)
    (told,) = errors_told(quiet_daemon)
    assert os.strerror(errno.EAGAIN) in told


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.EMFILE, errno.EAGAIN, errno.EIO])
def test_what_the_system_refuses_is_one_sentence_with_a_way_out(number: int) -> None:
    error = refusal(OSError(number, os.strerror(number)))
    assert error.reason is Reason.PROCESS_NOT_STARTED
    assert error.hint
    assert os.strerror(number) in error.message


@pytest.mark.parametrize(
    ("status", "errors", "whole"),
    [
        (1, "/venv/bin/python: No module named m1train", False),
        (1, "m1train: a library is missing (No module named 'torch'): pip install 'm1d[daemon]'", False),
        (127, "python: error while loading shared libraries: libpython3.11.so.1.0", False),
        (1, "ValueError: a defect", True),
        (-9, "", True),
        (0, "ImportError: said and survived", True),
    ],
)
def test_a_broken_installation_is_told_from_another_end(status: int, errors: str, whole: bool) -> None:
    assert (broken_installation(status, errors) is None) == whole
