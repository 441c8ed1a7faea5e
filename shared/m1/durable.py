"""Writing files so that they are there, whole, after a crash: the only place that calls fsync."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
from pathlib import Path

# macOS: fsync hands the data to the drive, F_FULLFSYNC makes the drive write it (fcntl(2)).
_FULL_FSYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)


def sync(fd: int) -> None:
    """Return when the file's bytes are on the medium."""
    if _FULL_FSYNC is not None:
        fcntl.fcntl(fd, _FULL_FSYNC)
    else:
        os.fsync(fd)


def sync_directory(path: Path) -> None:
    """Return when the directory's entries (creations, renames, deletions) are on the medium."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync(fd)
    finally:
        os.close(fd)


def open_regular(path: Path | str, flags: int = os.O_RDONLY) -> int:
    """Open a regular file; the descriptor. Never waits for what is none, as a FIFO would for its writer.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return fd


def read_regular(path: Path) -> bytes:
    """Read a regular file whole.

    Raises:
        OSError: as `open_regular`.
    """
    with open(path, "rb", opener=open_regular) as file:
        return file.read()


def write_file(path: Path, content: bytes) -> None:
    """Write a new file and sync it; the caller syncs the directory."""
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        sync(file.fileno())


def replace_file(path: Path, content: bytes, *, durable: bool) -> None:
    """Put content in path's place in one step: a reader sees the old file or the new one, never a part.

    With durable, the new one is also there after a power cut.
    """
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(fd, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                sync(fd)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def out_of_space(error: BaseException | None) -> bool:
    """Return True if an error says that the disk, or the user's share of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
