"""Training processes: starting them, knowing whether they live, ending them.

Children are started with posix_spawn: grpc's threads make fork unsafe, and on macOS grpc aborts there. A child gets a
session of its own, so that no signal meant for the daemon reaches it, and by its job's lock it can be recognised by
any later daemon.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
from m1.failpoints import reach
from m1.jobdir import LOCK_FD, lock_path, log_path

from m1d.jobs.job import Process
from m1d.processes.leftovers import MARK
from m1d.processes.spawn import spawn

# Source descriptors of dup2 must not be the target, or it would not clear close-on-exec everywhere.
LOWEST_FREE_FD = 10


def train_command(*arguments: str) -> list[str]:
    """How the training process's package is run: by this interpreter, without the current directory on its path."""
    return [sys.executable, "-P", "-m", "m1train", *arguments]


class AlreadyRunningError(OSError):
    """The job's lock is held: a training process lives."""


def keeper_command(*arguments: str) -> list[str]:
    """How the keeper of a program is run; see m1d.keeper."""
    return [sys.executable, "-P", "-m", "m1d.keeper", *arguments]


def try_command(*, program: bool) -> list[str]:
    """How it is tried whether the process of a job could run here at all: it imports what it needs, and ends."""
    return [sys.executable, "-P", "-c", "import m1d.keeper.__main__" if program else "import m1train.__main__, torch"]


def start_process(directory: Path, command: Sequence[str], environment: Mapping[str, str]) -> Process:
    """Start the process of a job on its directory; it holds the job's lock from its first instruction on.

    Args:
        directory: the job's; standard output and error are its log.
        command: this interpreter, and what it runs.
        environment: all of it.

    Raises:
        AlreadyRunningError: one lives already.
        M1Error: PROCESS_NOT_STARTED.
        OSError: the files that it is given cannot be opened.
    """
    with ExitStack() as files:
        lock = open_high(lock_path(directory), os.O_RDWR | os.O_CREAT, files)
        log = open_high(log_path(directory), os.O_WRONLY | os.O_CREAT | os.O_APPEND, files)
        null = open_high(Path(os.devnull), os.O_RDONLY, files)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunningError(f'a training process that is not this attempt\'s holds "{directory}"') from None
        reach("before.spawn")
        actions = [
            (os.POSIX_SPAWN_DUP2, null, 0),
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
            (os.POSIX_SPAWN_DUP2, lock, LOCK_FD),
        ]
        pid = spawn(command, {**environment, MARK: str(directory)}, actions)
        reach("after.spawn")
    return Process(pid, start_mark(pid))


def start_mark(pid: int) -> str:
    """When a process started, in the system's own count: together with the pid it names one process.

    On Linux field 22 of /proc/<pid>/stat, in ticks since boot; on macOS the start time that the kernel noted. Unlike
    a start time computed from the clock, neither changes when the clock jumps.

    Raises:
        ProcessLookupError: there is no such process.
    """
    try:
        if sys.platform == "linux":
            mark = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        else:
            mark = repr(psutil.Process(pid).create_time())
    except (FileNotFoundError, psutil.NoSuchProcess) as error:
        raise ProcessLookupError(f"no process {pid}") from error
    return mark


def open_high(path: Path, flags: int, files: ExitStack) -> int:
    """Open a file for a child, by a descriptor that none of the child's own is; `files` closes it."""
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        return moved_high(fd, files)
    finally:
        os.close(fd)


def moved_high(fd: int, files: ExitStack) -> int:
    """Give another descriptor of an open file, which none of a child's own is; `files` closes it."""
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, LOWEST_FREE_FD)
    files.callback(os.close, high)
    return high


def is_training(directory: Path) -> bool:
    """Whether a training process lives on a job's directory, whoever started it."""
    try:
        fd = os.open(lock_path(directory), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def ending(process: Process) -> str | None:
    """How a process that gave up its lock ended, in words; "" if it was not this daemon's child. None: not gone yet.

    The system frees a dying process's lock, and its memory, a moment before it lets go of the process itself.
    """
    try:
        pid, status = os.waitpid(process.pid, os.WNOHANG)
    except ChildProcessError:
        return None if _lives(process) else ""
    if pid == 0:
        return None
    code = os.waitstatus_to_exitcode(status)
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def _lives(process: Process) -> bool:
    try:
        same = start_mark(process.pid) == process.start_mark
        return same and psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


def kill(process: Process) -> None:
    """SIGKILL, if the pid is still that process."""
    with suppress(ProcessLookupError):
        if start_mark(process.pid) == process.start_mark:
            os.kill(process.pid, signal.SIGKILL)
