"""A program and all that it has started: found, stopped, continued, ended.

On Linux the keeper is the reaper of whatever loses its parent below it (prctl(2), PR_SET_CHILD_SUBREAPER), so nothing
gets away by forking twice or by a session of its own. Elsewhere those are found that have the program's session, or its
job's mark in their environment.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import psutil

from m1d.processes.leftovers import marked

_PR_SET_CHILD_SUBREAPER = 36
# A family that goes on forking while it is killed is stopped process by process first; a round takes in what is new.
_MOST_ROUNDS = 100


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own, where the system can do that."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Family:
    """The program, in a session of its own, and its descendants."""

    def __init__(
        self, command: Sequence[str], directory: str, environment: Mapping[str, str], output: int, mark: str
    ) -> None:
        """Start the program; `mark` is in its environment, and says whose job it belongs to.

        Raises:
            OSError: it cannot be started.
        """
        adopt_orphans()
        self._mark = mark
        self._popen = subprocess.Popen(
            list(command),
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        self.pid = self._popen.pid

    def ended(self) -> int | None:
        """Reap whatever has died; the program's exit code (negative: a signal killed it), None while it lives."""
        with suppress(ChildProcessError):
            while (reaped := os.waitpid(-1, os.WNOHANG))[0]:
                if reaped[0] == self.pid:
                    self._popen.returncode = os.waitstatus_to_exitcode(reaped[1])
        return self._popen.returncode

    def terminate(self) -> None:
        """Ask all of it to end."""
        self._signal(self._members(), signal.SIGTERM)
        self.go_on()

    def hold(self) -> None:
        """Stop all of it where it stands."""
        stopped: set[int] = set()
        for _ in range(_MOST_ROUNDS):
            new = [member for member in self._members() if member.pid not in stopped]
            if not new:
                return
            self._signal(new, signal.SIGSTOP)
            stopped |= {member.pid for member in new}

    def go_on(self) -> None:
        """Let all of it go on."""
        self._signal(self._members(), signal.SIGCONT)

    def end(self) -> list[str]:
        """Kill whatever is left; what that was: "python (4711)"."""
        found: dict[int, str] = {}
        for _ in range(_MOST_ROUNDS):
            members = self._members()
            if not members:
                break
            for member in members:
                found.setdefault(member.pid, _described(member))
            self._signal(members, signal.SIGSTOP)
            self._signal(members, signal.SIGKILL)
            psutil.wait_procs(members, timeout=1)
            self.ended()
        return list(found.values())

    def _members(self) -> list[psutil.Process]:
        """All that live, the program first."""
        own = psutil.Process()
        members = {member.pid: member for member in own.children(recursive=True)}
        if sys.platform != "linux":
            members |= {member.pid: member for member in marked(self._mark, self.pid) if member.pid != own.pid}
        return [members[pid] for pid in sorted(members) if _lives(members[pid])]

    @staticmethod
    def _signal(members: Iterable[psutil.Process], number: signal.Signals) -> None:
        for member in members:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # gone, or another user's by setuid
                member.send_signal(number)


def _lives(member: psutil.Process) -> bool:
    try:
        return bool(member.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _described(member: psutil.Process) -> str:
    try:
        return f"{member.name()} ({member.pid})"
    except psutil.Error:
        return str(member.pid)
