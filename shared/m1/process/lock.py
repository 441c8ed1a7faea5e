"""The job's lock, in the hands of the training process: inherited from the daemon, or taken."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from m1.errors import M1Error, Reason
from m1.jobdir import LOCK_FD, lock_path


def hold_lock(directory: Path) -> int:
    """The descriptor by which this process holds the job's lock, passed on to no child. Keep it until the end.

    Raises:
        M1Error: WRONG_STATE, when another process trains this job.
    """
    path = lock_path(directory)
    fd = _inherited(path)
    if fd is None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.set_inheritable(fd, False)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # does nothing when the inherited file is locked already
    except BlockingIOError as error:
        os.close(fd)
        message = f'the job in "{directory}" is trained by another process'
        raise M1Error(Reason.WRONG_STATE, message, "stop that one first") from error
    return fd


def _inherited(path: Path) -> int | None:
    try:
        inherited, named = os.fstat(LOCK_FD), os.stat(path)
    except OSError:
        return None  # started by hand: the descriptor or the file is not there
    same = (inherited.st_dev, inherited.st_ino) == (named.st_dev, named.st_ino)
    return LOCK_FD if same else None
