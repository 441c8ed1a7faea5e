"""A real daemon on a home of its own, for the tests that start, kill and ask one."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psutil
from m1.jobdir import lock_path
from m1.journal import JournalWriter, journal_path
from m1.paths import Home
from m1.v1 import job_pb2
from m1ctl.sdk.client import Client, connect
from m1d.processes.leftovers import MARK

# A test waits for what it expects, and gives up after this long; a busy machine with two cores is slow.
PATIENCE_S = 120.0


class RunningDaemon:
    """A daemon of a test: started, killed and started again on one home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.python = sys.executable
        self.process: subprocess.Popen[bytes] | None = None
        self.client: Client = connect(home, timeout_s=PATIENCE_S)

    def start(self, **extra: str) -> None:
        """Start it, with extra environment variables, and wait until it answers."""
        self.spawn(**extra)
        self.client.close()
        self.client = connect(self.home, timeout_s=PATIENCE_S)
        assert self.client.connection.wait_until_ready(PATIENCE_S), self.log()

    def spawn(self, **extra: str) -> None:
        """Start it, with extra environment variables, and don't wait."""
        self.process = subprocess.Popen(
            [self.python, "-P", "-m", "m1d", "serve", "--home", str(self.home)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(self.home) | extra,
        )

    def kill(self) -> None:
        """SIGKILL: what was not stored is lost."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    def m1ctl(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """The command line, as a person types it; not on a terminal."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "m1ctl", *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            env=environment(self.home),
            **options,
        )

    def begin_m1ctl(self, *arguments: str) -> subprocess.Popen[str]:
        """A command that goes on while the test does something else."""
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "m1ctl", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(self.home),
        )

    def log(self) -> str:
        """The daemon's own log."""
        return (self.home / "m1d.log").read_text()

    def end(self) -> None:
        """Leave nothing behind: neither the daemon nor a process of a job."""
        self.client.close()
        if self.process and self.process.poll() is None:
            self.kill()
        for process in psutil.process_iter(["cmdline", "environ"]):
            command, variables = process.info["cmdline"] or [], process.info["environ"] or {}
            trains = "m1train" in command and any(str(self.home) in word for word in command)
            if trains or variables.get(MARK, "").startswith(f"{self.home}/"):
                process.send_signal(signal.SIGKILL)
        shutil.rmtree(self.home, ignore_errors=True)


class StandIn:
    """This program in the place of a held job's training process: it has its lock, and writes its journal."""

    def __init__(self, daemon: RunningDaemon, job: job_pb2.Job) -> None:
        """Kill the daemon and the process, and take its place; the next daemon adopts this one."""
        daemon.kill()
        process = psutil.Process(job.pid)
        process.kill()
        psutil.wait_procs([process])
        directory = Home(daemon.home).job(job.id)
        self._lock = os.open(lock_path(directory), os.O_RDWR)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        path = journal_path(directory, job.attempt)
        written = path.read_bytes()
        path.unlink()
        self.journal = JournalWriter(path)
        with open(path, "ab") as file:
            file.write(written)  # what the process had said; what it would have said comes behind

    def leave(self) -> None:
        """End, as a killed process does."""
        self.journal.close()
        os.close(self._lock)


def read_until(output: IO[str] | None, words: str) -> str:
    """The output up to the line with these words."""
    assert output is not None
    read = ""
    for line in output:
        read += line
        if words in line:
            return read
    raise AssertionError(f"it ended without {words!r}: {read}")


# One step is short, the whole is long: a job that a test can catch at any moment.
LONG: dict[str, bool | float | str] = {"epochs": 10_000, "batch_size": 12, "checkpoint_every_epochs": 0}


def environment(home: Path) -> dict[str, str]:
    """As little of ours as possible."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    return kept | {"M1D_HOME": str(home), "OMP_NUM_THREADS": "1"}


def make_home(data_cache: Path) -> Path:
    """A home with the datasets in its cache, in a directory whose name is short enough for a socket."""
    home = Path(tempfile.mkdtemp(prefix="m1-", dir="/tmp"))
    shutil.copytree(data_cache, Home(home).data)
    return home


@contextmanager
def running_daemon(data_cache: Path) -> Iterator[RunningDaemon]:
    """A daemon that serves, for the length of a block."""
    daemon = RunningDaemon(make_home(data_cache))
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.end()
