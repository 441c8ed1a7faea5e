"""Hidden directories in the cache for what is being made, and the removal of those whose maker was killed.

Whoever makes one holds a lock on it while it lives; the kernel lets go of the lock with the process. So a directory
whose lock is free is nobody's, whatever its age.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

_KINDS = ("building", "download")


def make_private(root: Path) -> None:
    """Make the cache's directory and the home above it where they are missing, open to their owner alone.

    mkdir(parents=True) gives its mode to the leaf only, and the daemon refuses a home that others can read.
    """
    root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    root.mkdir(mode=0o700, exist_ok=True)


@contextlib.contextmanager
def scratch_directory(root: Path, kind: Literal["building", "download"]) -> Iterator[Path]:
    """A directory that is locked while this process lives, and removed in the end unless it was renamed."""
    directory, fd = _locked(root, f".{kind}-")
    try:
        yield directory
    finally:
        if directory.exists():
            shutil.rmtree(directory)
        os.close(fd)


def remove_abandoned(root: Path) -> None:
    """Remove what makers left behind that were killed: nobody holds its lock."""
    for directory in (found for kind in _KINDS for found in root.glob(f".{kind}-*/")):
        with contextlib.suppress(OSError):  # gone, or its maker lives, or it is not ours to remove
            fd = _open(directory)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory)
            finally:
                os.close(fd)


def _locked(root: Path, prefix: str) -> tuple[Path, int]:
    while True:
        directory = Path(tempfile.mkdtemp(prefix=prefix, dir=root))
        with contextlib.suppress(FileNotFoundError):  # it was taken for abandoned before its lock was held
            fd = _open(directory)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                directory.stat()
            except BaseException:
                os.close(fd)
                raise
            return directory, fd


def _open(directory: Path) -> int:
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
