"""Starting the daemon in the background, and knowing when a process has gone. Nothing here polls.

The daemon is started by posix_spawn in a session of its own: it does not fork this process, whose gRPC threads would
not survive that, and it does not end with the terminal. Its errors go to a file that is gone when this process is: once
it serves, it writes to its own log only. Of this process's open files it gets no other.
"""

from __future__ import annotations

import os
import queue
import select
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Self

from m1.descriptors import keep_from_children
from m1.errors import ExitCode, M1Error, Reason

if TYPE_CHECKING:
    from m1.paths import Home
    from m1.v1.system_pb2 import GetSystemInfoResponse

    from m1ctl.sdk.client import Client

START_TIMEOUT_S = 30.0


class DaemonExitedError(Exception):
    """The daemon that was started did not stay: its own sentence and exit code."""

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code


def start_daemon(home: Home, client: Client, timeout_s: float) -> GetSystemInfoResponse:
    """Start a daemon and return when it answers.

    Raises:
        DaemonExitedError: it ended before it answered.
        M1Error: TIMED_OUT.
    """
    import grpc

    happened: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    with tempfile.TemporaryFile() as errors:
        pid = _spawn(home, errors.fileno())
        threading.Thread(target=_report_exit, args=(pid, happened), daemon=True).start()
        ready = grpc.channel_ready_future(client.connection.channel)
        ready.add_done_callback(lambda _: happened.put(None))
        try:
            exit_code = happened.get(timeout=timeout_s)
        except queue.Empty:
            raise M1Error(
                Reason.TIMED_OUT,
                f"the daemon (pid {pid}) is not ready after {timeout_s:g} s",
                f"see {home.log}, or allow more time with --timeout",
            ) from None
        finally:
            ready.cancel()
        if exit_code is not None:
            errors.seek(0)
            raise _exited(exit_code, errors.read().decode(errors="replace"))
    return client.system_info()


def _spawn(home: Home, errors_fd: int) -> int:
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, errors_fd, 2),
    ]
    keep_from_children()
    command = [sys.executable, "-P", "-m", "m1d", "serve", "--quiet", "--home", str(home.root)]
    return os.posix_spawn(sys.executable, command, os.environ, file_actions=actions, setsid=True)


def _report_exit(pid: int, happened: queue.SimpleQueue[int | None]) -> None:
    _, status = os.waitpid(pid, 0)
    happened.put(os.waitstatus_to_exitcode(status))


def _exited(code: int, errors: str) -> DaemonExitedError:
    said = [line for line in errors.splitlines() if line.strip()]
    how = f"by signal {-code}" if code < 0 else f"with code {code}"
    sentence = said[-1].removeprefix("m1d: ") if said else f"the daemon exited {how} without a message"
    return DaemonExitedError(sentence, code if code > 0 else ExitCode.ERROR)


class Departure:
    """The end of a process that need not be ours. Made while it lives, so a pid that is used again misleads nobody."""

    def __init__(self, pid: int) -> None:
        self._fd: int | None
        try:
            if sys.platform == "darwin":
                self._queue = select.kqueue()
                self._fd = self._queue.fileno()
                watched = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
                self._queue.control([watched], 0, 0)
            else:
                self._fd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if sys.platform == "darwin":
            self._queue.close()
        elif self._fd is not None:
            os.close(self._fd)

    def wait(self, timeout_s: float | None) -> bool:
        """Return True if the process exited within the time."""
        if self._fd is None:
            return True
        return bool(select.select([self._fd], [], [], timeout_s)[0])


def is_daemon_installed() -> bool:
    """Return True if this Python can run the daemon: the client alone installs without it."""
    import importlib.util

    return all(importlib.util.find_spec(package) for package in ("m1d", "psutil", "grpc_health", "grpc_reflection"))
