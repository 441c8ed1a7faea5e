"""Named places where a test can kill a program, or have the system refuse it something.

`M1D_FAILPOINT=name` in the environment kills the process with SIGKILL when it reaches that place; `name:3` at the third
time; `name=ENOSPC` raises that OSError instead, every time. Unset, reaching a place costs one call of an empty
function. Every place is declared here, so that a sweep can visit all of them.
"""

from __future__ import annotations

import errno
import os
import signal

VARIABLE = "M1D_FAILPOINT"

# Each is `<before or after>.<what>`; a reader finds the place by searching for the name.
DAEMON = (
    "before.commit",
    "after.commit",
    "after.publish",
    "before.spawn",
    "after.spawn",
    "before.adopt",
    "after.adopt",
    "before.desired",
    "after.desired",
    "before.delete",
    "after.delete",
)
TRAINING = (
    "before.journal",
    "within.journal",
    "after.journal",
    "before.checkpoint",
    "after.weights",
    "after.optimizer",
    "before.manifest",
    "before.rename",
    "after.rename",
    "after.checkpoint",
    "before.removal",
    "before.exited",
    "before.cache.rename",
)


def _arm(setting: str) -> tuple[str, int, int]:
    """The name, the number of the visit that counts, and the errno to raise (0: kill)."""
    place, _, error = setting.partition("=")
    name, _, visit = place.partition(":")
    if name not in DAEMON + TRAINING:
        raise ValueError(f'{VARIABLE}="{setting}" names no failpoint: {", ".join(DAEMON + TRAINING)}')
    return name, int(visit or 1), getattr(errno, error) if error else 0


class _Failpoint:
    def __init__(self, setting: str) -> None:
        self._name, self._left, self._errno = _arm(setting)

    def __call__(self, name: str) -> None:
        if name != self._name:
            return
        self._left -= 1
        if self._errno and self._left <= 0:
            raise OSError(self._errno, os.strerror(self._errno))
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _nothing(_name: str) -> None:
    return


_setting = os.environ.get(VARIABLE)
reach = _Failpoint(_setting) if _setting else _nothing
