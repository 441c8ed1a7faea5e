"""Open files that a process was given by whoever started it. What outlives its starter keeps none of them.

A pipe or a lock of a shell would otherwise be held as long as the daemon lives, and by every training after it.
"""

from __future__ import annotations

import os
from contextlib import suppress

_FIRST_OTHER = 3  # after standard input, output and error


def keep_from_children() -> None:
    """Have no process that this one starts get an open file of it but the first three."""
    for fd in _others():
        with suppress(OSError):  # the one by which they were listed is closed already
            os.set_inheritable(fd, False)


def close_inherited() -> None:
    """Close every open file but the first three. For a program's first lines, before it opens any."""
    for fd in _others():
        with suppress(OSError):
            os.close(fd)


def _others() -> list[int]:
    # /dev/fd is there on macOS, and on Linux unless /dev is bare.
    for directory in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return [int(name) for name in os.listdir(directory) if int(name) >= _FIRST_OTHER]
    return list(range(_FIRST_OTHER, min(os.sysconf("SC_OPEN_MAX"), 65536)))
