"""What a job has started and left running when its process is gone: found by session or by a mark, and ended.

Every process of a job has `M1D_JOB=<the job's directory>` in its environment, and so has what it starts, unless that
takes the variable away. What the process itself leads is also found by its session.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

MARK = "M1D_JOB"
NO_SESSION = -1
"""No process has it."""


def marked(mark: str, session: int) -> Iterator[psutil.Process]:
    """Every process of this user that has a job's mark, or belongs to a session; those that have died are left out."""
    wanted = f"{MARK}={mark}"
    for pid in psutil.pids():
        with suppress(psutil.Error, OSError):  # it has gone meanwhile, or is not this user's
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE and (os.getsid(pid) == session or _has(pid, wanted)):
                yield process


def end_leftovers(mark: str, session: int) -> list[str]:
    """Kill what a job has left running; what that was: "python (4711)"."""
    ended: dict[int, str] = {}
    own = os.getpid()
    while found := [process for process in marked(mark, session) if process.pid != own]:
        for process in found:
            with suppress(psutil.Error):
                ended.setdefault(process.pid, f"{process.name()} ({process.pid})")
                process.kill()
        _, alive = psutil.wait_procs(found, timeout=1)
        if alive:
            break
    return list(ended.values())


def _has(pid: int, wanted: str) -> bool:
    environ = Path(f"/proc/{pid}/environ")
    if environ.exists():  # psutil makes a dictionary of every one of them
        return os.fsencode(wanted) in environ.read_bytes().split(b"\0")
    name, _, value = wanted.partition("=")
    return bool(psutil.Process(pid).environ().get(name) == value)
