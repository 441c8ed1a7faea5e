"""The job's directory as a program sees it: what is wanted is read, the journal is appended to."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
import threading
import time
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HEADER = struct.Struct("<II")
_LONGEST_RECORD = 2**20


def out_of_space(error: BaseException) -> bool:
    """Return True if an error, or what it came from, says that the disk is full."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


class Desired:
    """What the daemon wants, by `desired.json`; looking costs one stat."""

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, "desired.json")
        self._seen: tuple[int, int, int] | None = None
        self.want = "run"
        self.checkpoint = 0
        """The number of the newest checkpoint that was asked for."""

    def look(self) -> None:
        """Read it, if it has changed. What cannot be read was not written by the daemon, and changes nothing."""
        try:
            facts = os.stat(self._path)
            seen = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
            if seen == self._seen:
                return
            with open(self._path, "rb") as file:
                said = json.loads(file.read())
            self.want, self.checkpoint = str(said["want"]), int(said["checkpoint"])
            self._seen = seen
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError):
            self._seen = seen


class Journal:
    """The attempt's journal, to which the keeper writes as well: every record by one write, under a lock.

    What cannot be written because the disk is full is kept and written later, but for metrics, which are lost.
    """

    def __init__(self, directory: str, attempt: int) -> None:
        """Open it.

        Raises:
            OSError: it cannot be opened.
        """
        self._path = os.path.join(directory, f"journal-{attempt}")
        self._owed: list[bytes] = []
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        self._end = 0
        self._pid = os.getpid()
        self._lock = threading.RLock()  # a program may save in a thread, and say something when a signal comes

    def append(self, kind: str, record: dict[str, Any], owed: bool = True) -> None:
        """Append a record; `owed`: one that cannot be written now is written later."""
        payload = json.dumps({"kind": kind, "time": time.time(), "record": record}).encode()
        if len(payload) > _LONGEST_RECORD:
            raise ValueError(f"a record of {len(payload)} bytes, and at most {_LONGEST_RECORD} are read")
        if os.getpid() != self._pid:
            # A forked child: a lock keeps out nobody who shares the descriptor. What its parent owes is the parent's.
            self._owed = []
            self._open()
        with self._lock:
            self._append(_HEADER.pack(len(payload), zlib.crc32(payload)) + payload, owed)

    def _append(self, frame: bytes, owed: bool) -> None:
        self._owed.append(frame)
        try:
            while self._owed:
                self._write(self._owed[0])
                del self._owed[0]
        except OSError as error:
            if not out_of_space(error):
                raise
            if not owed:
                self._owed.pop()

    def _write(self, frame: bytes) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            self._find_end()
            try:
                written = os.write(self._fd, frame)
                while written < len(frame):
                    written += os.write(self._fd, frame[written:])
            except OSError:
                os.ftruncate(self._fd, self._end)
                raise
            self._end += len(frame)
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _find_end(self) -> None:
        """Go over what the keeper has appended, and cut off a record that somebody was killed in."""
        size = os.fstat(self._fd).st_size
        while self._end < size:
            header = os.pread(self._fd, _HEADER.size, self._end)
            length = _HEADER.unpack(header)[0] if len(header) == _HEADER.size else 0
            if not length or self._end + _HEADER.size + length > size:
                os.ftruncate(self._fd, self._end)
                return
            self._end += _HEADER.size + length
