"""A job's log, kept small: what the processes of a job printed, of which the newest 8 to 16 MiB stay.

    log         the newest part. Processes append to it (O_APPEND), and know nothing of what is done here
    log.1       the part before it, at most LOG_BYTES; its first line says how many bytes before it were dropped
    log.marks   when the log had which length: "<seconds since the epoch> <offset>" a line

A file that others append to cannot be replaced, so it is cut in place: its newest part is copied to `log.1`, which
appears by one rename, and then it is made empty. What another process appends between the last look and the cut (some
microseconds) is lost; where there was no room for what came, the log says how much it was. Whoever runs the processes
calls `look` now and then (`Bounding` is a thread that does); a process may do it for its own log, so that it is bounded
though nobody else lives, and then nothing of its own is lost.

Offsets count all that was ever printed, so they stay what they are when the log is cut. A process that is killed
between the rename and the cut leaves a part twice. Reader and cutter exclude each other by a lock (flock) on `log`.

The log has no times of its own. A mark tells what was printed before its moment; `since` goes back to the last mark
before a time, so it gives all that was printed since, and perhaps some lines from just before.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import stat
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from m1.durable import replace_file

LOG_BYTES = 8 * 2**20
"""Of either file, about."""
LOOK_S = 0.2
"""How often a log is looked at: what is printed meanwhile is what it may be too long by."""
_SOON_S = 0.01
_MARK_S = 1.0
_MARK_BYTES = 64
_MOST_MARKS_BYTES = 2**17
_BLOCK_BYTES = 2**16
_HEADER = re.compile(rb"m1d: (\d{1,18}) bytes of older output were dropped\n")
_HEADER_BYTES = 80


@dataclass(frozen=True)
class LogPart:
    """A piece of a log."""

    content: bytes
    offset: int
    """Of its first byte; later than was asked for where that is kept no longer."""

    @property
    def next_offset(self) -> int:
        """The byte after it."""
        return self.offset + len(self.content)


# Keeping it small


def look(log: Path, clock: Callable[[], float] = time.time, most_bytes: int = LOG_BYTES) -> float:
    """Note how long a log is by now, and cut it if it is too long; when to look again, in seconds.

    Raises:
        OSError: the disk refuses. The log is as it was, or cut.
    """
    try:
        fd = os.open(log, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return LOOK_S
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return LOOK_S
        end, now = _older(log).end + found.st_size, clock()
        if found.st_size > most_bytes:
            with _locked(fd, fcntl.LOCK_EX | fcntl.LOCK_NB) as is_ours:
                if is_ours:
                    _cut(log, fd, most_bytes)
        _mark(log, end, now)
        return _SOON_S if found.st_size > most_bytes else LOOK_S
    finally:
        os.close(fd)


def _cut(log: Path, fd: int, most_bytes: int) -> None:
    base, size = _older(log).end, os.fstat(fd).st_size
    older = _older_path(log)
    try:
        copied = _move(log, fd, base, size, most_bytes)
        rest, lost = _empty(fd, copied, most_bytes)
        if rest:
            with open(older, "ab") as file:
                file.write(rest)
    except OSError:
        # A disk that is full has room once both are given up. That the log stays small counts more than what is in it.
        older.unlink(missing_ok=True)
        first = max(0, size - most_bytes)
        rest, lost = _empty(fd, first, most_bytes)
        try:
            replace_file(older, _header(base + first) + rest, durable=False)
        except OSError:
            lost += len(rest)
    if lost:
        os.write(fd, f"m1d: {lost} bytes of output were dropped here: they could not be kept\n".encode())


def _empty(fd: int, first: int, most_bytes: int) -> tuple[bytes, int]:
    """Make a file empty, and give what it had from a byte on, and how much more than `most_bytes` that was.

    These calls keep the interpreter's lock, and there is none in between that gives it away: where a thread of this
    very process prints, nothing comes between the look and the cut. What another process prints just then is lost.
    """
    size = _LIBC.lseek(fd, 0, os.SEEK_END)
    content = ctypes.create_string_buffer(max(0, min(size - first, most_bytes)))
    read_bytes = max(0, _LIBC.pread(fd, content, len(content), first))
    if _LIBC.ftruncate(fd, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return content.raw[:read_bytes], max(0, size - first - read_bytes)


def _libc() -> ctypes.PyDLL:
    libc = ctypes.PyDLL(None, use_errno=True)
    libc.lseek.argtypes, libc.lseek.restype = (ctypes.c_int, ctypes.c_int64, ctypes.c_int), ctypes.c_int64
    libc.pread.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64)
    libc.pread.restype = ctypes.c_ssize_t
    libc.ftruncate.argtypes = (ctypes.c_int, ctypes.c_int64)
    return libc


_LIBC = _libc()


def _move(log: Path, fd: int, base: int, size: int, most_bytes: int) -> int:
    """Make the last lines of a log its older part, and say up to which byte they were copied."""
    first = max(0, size - most_bytes)
    content = _pread(fd, first, size)
    skipped = content.find(b"\n") + 1 if first else 0
    temporary = log.with_name(f".{log.name}.1.new")
    try:
        with open(temporary, "wb", opener=_private) as file:
            file.write(_header(base + first + skipped) + content[skipped:])
            limit = size + most_bytes
            while more := _pread(fd, size, min(limit, size + _BLOCK_BYTES)):  # what has come meanwhile
                file.write(more)
                size += len(more)
            file.flush()
        os.rename(temporary, _older_path(log))
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return size


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _header(dropped: int) -> bytes:
    return f"m1d: {dropped} bytes of older output were dropped\n".encode()


def _mark(log: Path, end: int, now: float) -> None:
    path = _marks_path(log)
    with open(path, "a+b", opener=_private) as file:
        size = file.tell()
        file.seek(max(0, size - _MARK_BYTES))
        last = _parsed(file.read().splitlines()[-1:])
        if last and (last[0][1] >= end or 0 <= now - last[0][0] < _MARK_S):
            return
        file.write(f"{now:.3f} {end}\n".encode())
    if size > _MOST_MARKS_BYTES:  # the older ones become fewer, which only makes `since` less sharp there
        marks = _marks(log)
        half = len(marks) // 2
        kept = [*marks[:half:2], *marks[half:]]
        replace_file(path, "".join(f"{at:.3f} {offset}\n" for at, offset in kept).encode(), durable=False)


class Bounding:
    """A thread that looks at a log until the end of the block. It ends with its process, and keeps none alive."""

    def __init__(self, log: Path, tell: Callable[[str], None] = lambda _: None) -> None:
        """`tell` is told once if the disk refuses."""
        self._log = log
        self._tell = tell
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)

    def __enter__(self) -> Bounding:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        told = False
        while True:
            is_last = self._end.is_set()
            try:
                pause_s = look(self._log)
            except OSError as error:
                if not told:
                    self._tell(f'the log "{self._log}" cannot be kept small ({error})')
                told, pause_s = True, LOOK_S
            if is_last:
                return
            self._end.wait(pause_s)


# Reading it


def read(log: Path, offset: int, most_bytes: int) -> LogPart:
    """What was printed from a byte on, at most `most_bytes` of it; empty at the end. A missing log is empty.

    What is kept no longer is passed over: the part's offset says where it begins.

    Raises:
        OSError: it cannot be read.
    """
    with _opened(log) as kept:
        return kept.part(offset, most_bytes)


def tail(log: Path, lines: int) -> int:
    """Where the last lines begin; a line that has not ended yet is one.

    Raises:
        OSError: the log cannot be read.
    """
    with _opened(log) as kept:
        if lines <= 0:
            return kept.end
        at = kept.end - (kept.part(kept.end - 1, 1).content == b"\n")
        while at > kept.first:
            start = max(kept.first, at - _BLOCK_BYTES)
            block = kept.between(start, at)
            newline = len(block)
            while (newline := block.rfind(b"\n", 0, newline)) >= 0:
                lines -= 1
                if lines == 0:
                    return start + newline + 1
            at = start
        return kept.first


def since(log: Path, seconds: float) -> int:
    """Where the line begins before which all was printed before a time (seconds since the epoch).

    Raises:
        OSError: the log cannot be read.
    """
    with _opened(log) as kept:
        if kept.changed < seconds:
            return kept.end
        marks = _marks(log)
        before = bisect_right(marks, seconds, key=lambda mark: mark[0])
        at = min(max(marks[before - 1][1] if before else 0, kept.first), kept.end)
        while at > kept.first:  # back to where that line begins
            start = max(kept.first, at - _BLOCK_BYTES)
            newline = kept.between(start, at).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            at = start
        return at


@dataclass(frozen=True)
class _Older:
    """The part before the newest one."""

    first: int
    """The offset of its first byte."""
    end: int
    header_bytes: int


def _older(log: Path) -> _Older:
    try:
        with open(_older_path(log), "rb") as file:
            header = _HEADER.match(file.read(_HEADER_BYTES))
            size = file.seek(0, os.SEEK_END)
    except FileNotFoundError:
        return _Older(0, 0, 0)
    if header is None:  # not ours
        return _Older(0, 0, 0)
    first = int(header[1])
    return _Older(first, first + size - header.end(), header.end())


class _Kept:
    """What is kept of a log, while nobody cuts it."""

    def __init__(self, fd: int, older_fd: int | None, older: _Older) -> None:
        self._fd = fd
        self._older_fd = older_fd
        self._older = older
        found = os.fstat(fd)
        self.changed = found.st_mtime
        """When something was printed last; seconds since the epoch."""
        self.end = older.end + found.st_size

    @property
    def first(self) -> int:
        return self._older.first

    def between(self, first: int, end: int) -> bytes:
        return self.part(first, end - first).content

    def part(self, offset: int, most_bytes: int) -> LogPart:
        offset = max(offset, self.first)
        older, content = self._older, b""
        if offset < older.end and self._older_fd is not None:
            at = older.header_bytes + offset - older.first
            content = _pread(self._older_fd, at, min(at + most_bytes, older.header_bytes + older.end - older.first))
        if len(content) < most_bytes and offset + len(content) >= older.end:
            at = offset + len(content) - older.end
            content += _pread(self._fd, at, at + most_bytes - len(content))
        return LogPart(content, offset)


@contextlib.contextmanager
def _opened(log: Path) -> Iterator[_Kept]:
    with contextlib.ExitStack() as stack:
        try:
            fd = _open(stack, log)
        except FileNotFoundError:
            fd = _open(stack, Path(os.devnull))
        stack.enter_context(_locked(fd, fcntl.LOCK_SH))
        older, older_fd = _older(log), None
        if older.header_bytes:
            older_fd = _open(stack, _older_path(log))
        yield _Kept(fd, older_fd, older)


def _open(stack: contextlib.ExitStack, path: Path) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


@contextlib.contextmanager
def _locked(fd: int, how: int) -> Iterator[bool]:
    """Hold the lock, and say whether it was free."""
    try:
        fcntl.flock(fd, how)
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


def _marks(log: Path) -> list[tuple[float, int]]:
    try:
        return _parsed(_marks_path(log).read_bytes().splitlines())
    except FileNotFoundError:
        return []


def _parsed(lines: Sequence[bytes]) -> list[tuple[float, int]]:
    marks = []
    for line in lines:
        seconds, _, offset = line.partition(b" ")
        with contextlib.suppress(ValueError):  # half a line, of a process that was killed
            marks.append((float(seconds), int(offset)))
    return marks


def _older_path(log: Path) -> Path:
    return log.with_name(f"{log.name}.1")


def _marks_path(log: Path) -> Path:
    return log.with_name(f"{log.name}.marks")


def _pread(fd: int, first: int, end: int) -> bytes:
    parts = []
    while first < end and (part := os.pread(fd, end - first, first)):
        parts.append(part)
        first += len(part)
    return b"".join(parts)
