"""What the tests of programs have in common: scripts, what they print, and that they are gone."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import psutil
from harness import RunningDaemon
from m1.v1 import job_pb2


def script(directory: Path, text: str, name: str = "program.py") -> list[str]:
    """The command that runs a Python program of this text."""
    path = directory / name
    path.write_text(f"import os, signal, subprocess, sys, time\n{text}\n")
    return [sys.executable, str(path)]


def printed(daemon: RunningDaemon, job: job_pb2.Job, pattern: str) -> re.Match[str]:
    """Wait until the job's log has a pattern."""
    text = ""
    for response in daemon.client.read_log(job.id, follow=True):
        text += response.chunk.decode()
        if found := re.search(pattern, text):
            return found
    raise AssertionError(f"it ended without {pattern!r}: {text}")


def log_of(daemon: RunningDaemon, job: job_pb2.Job) -> str:
    return b"".join(response.chunk for response in daemon.client.read_log(job.id)).decode()


def ended(daemon: RunningDaemon, job: job_pb2.Job) -> job_pb2.Job:
    return daemon.client.wait(job)


def check_gone(pid: int) -> None:
    """A process has died; if it is still there, it is a zombie that its reaper has not looked at."""
    try:
        process = psutil.Process(pid)
        assert process.status() == psutil.STATUS_ZOMBIE, f"{process} lives"
    except psutil.NoSuchProcess:
        pass


def notices(daemon: RunningDaemon, job: job_pb2.Job) -> list[str]:
    """What was said of a job that has ended."""
    told = []
    for response in daemon.client.watch(job.id, from_revision=1):
        told += [event.notice_raised.message for event in response.events if event.HasField("notice_raised")]
        if response.cursor >= job.revision:
            break
    return told
