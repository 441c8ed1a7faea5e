"""Short-lived processes of the training package that answer the daemon: what they print is read line by line."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import psutil
from m1.cgroup import oom_kills

from m1d.processes.spawn import broken_installation, refusal, spawn
from m1d.processes.training import moved_high, open_high, train_command

# How often it is looked whether one that has closed its output has ended.
_LOOK_S = 0.02
_LONGEST_LINE_BYTES = 2**22
_LAST_WORDS_BYTES = 2000
_LOWEST_PRIORITY = 19


@dataclass(frozen=True)
class ToolResult:
    """What a short-lived process ended with."""

    status: int
    errors: str
    """The end of its standard error."""
    oom: bool = False
    """It was killed, and the system has killed some process for want of memory since it began."""


class Tool:
    """A short-lived process of the training package, read line by line.

    Leaving the block kills it if it has not ended. Whatever it has started in its own process group goes with it.
    """

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], errors: Path, *, aside: bool = False
    ) -> None:
        """`aside`: it takes only the time of the processor that nothing else wants."""
        self._arguments = train_command(*arguments)
        self._environment = dict(environment)
        self._errors = errors
        self._aside = aside
        self._pid = 0

    async def __aenter__(self) -> Tool:
        self._oom_kills = oom_kills()
        output = self._start()
        if self._aside:
            # posix_spawn has no attribute for it; the threads that it starts later have its priority.
            with suppress(ProcessLookupError):  # it has ended already
                os.setpriority(os.PRIO_PROCESS, self._pid, _LOWEST_PRIORITY)
        loop = asyncio.get_running_loop()
        self._reader = asyncio.StreamReader(limit=_LONGEST_LINE_BYTES)
        self._transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(self._reader), output)
        return self

    def _start(self) -> FileIO:
        """Start it, in 0.15 ms (asyncio's own way would fork); its output.

        Raises:
            M1Error: PROCESS_NOT_STARTED.
        """
        try:
            with ExitStack() as files:
                read_end, write_end = os.pipe()
                output = FileIO(read_end, "rb")
                files.callback(os.close, write_end)
                not_started = files.enter_context(ExitStack())
                not_started.callback(output.close)
                null = open_high(Path(os.devnull), os.O_RDONLY, files)
                errors = open_high(self._errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, files)
                high = moved_high(write_end, files)
                actions = [(os.POSIX_SPAWN_DUP2, fd, k) for k, fd in enumerate((null, high, errors))]
                self._pid = spawn(self._arguments, self._environment, actions)
                not_started.pop_all()
        except OSError as error:
            raise refusal(error) from error
        return output

    async def lines(self) -> AsyncIterator[bytes]:
        """What it prints, until it closes its standard output."""
        async for line in self._reader:
            yield line

    async def line(self) -> bytes:
        """The next line that it prints; without a line's end, or empty, when it closed its standard output instead.

        Raises:
            ValueError: it is longer than 4 MiB.
        """
        return await self._reader.readline()

    async def result(self) -> ToolResult:
        """Wait for its end.

        Raises:
            M1Error: PROCESS_NOT_STARTED, when it could not run because the installation is not whole.
        """
        # Not by waitpid: a leader that is not reaped keeps its group's number from being another's.
        process = psutil.Process(self._pid)
        while process.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(_LOOK_S)
        status = await self._end()
        code = os.waitstatus_to_exitcode(status)
        oom = code == -signal.SIGKILL and self._oom_kills != oom_kills()
        result = ToolResult(code, _last_words(self._errors), oom)
        if not_whole := broken_installation(result.status, result.errors):
            raise not_whole
        return result

    async def _end(self) -> int:
        """Kill it with all that it has started, and reap it; the status of waitpid."""
        pid, self._pid = self._pid, 0
        with suppress(ProcessLookupError, PermissionError):  # the latter is macOS's word for a group of dead ones
            os.killpg(pid, signal.SIGKILL)
        _, status = await asyncio.shield(asyncio.to_thread(os.waitpid, pid, 0))
        return status

    async def __aexit__(self, *_: object) -> None:
        self._transport.close()
        if self._pid:
            await self._end()
        self._errors.unlink(missing_ok=True)


def _last_words(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
        return file.read().decode(errors="replace").strip()
