"""Named places where a test can kill a program, or have the system refuse it something.

`M1D_FAILPOINT=name` in the environment kills the process with SIGKILL when it reaches that place; `name:3` at the third
time; `name=ENOSPC` raises that OSError instead, every time, `name:3=ENOSPC` from the third time on and
`name:3-5=ENOSPC` from the third time to the fifth. Unset, reaching a place costs one call of an empty
function. Every place is declared here, so that a sweep can visit all of them.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import signal
from dataclasses import dataclass

VARIABLE = "M1D_FAILPOINT"

# Each is `<before or after>.<what>`; a reader finds the place by searching for the name.
DAEMON = (
    "before.commit",
    "after.commit",
    "after.publish",
    "before.migrate",
    "after.backup",
    "before.spawn",
    "after.spawn",
    "before.adopt",
    "after.adopt",
    "before.desired",
    "after.desired",
    "before.ingest",
    "after.ingest",
    "before.settle",
    "after.settle",
    "before.parent.copy",
    "after.parent.copy",
    "before.parent.move",
    "within.parent.move",
    "after.parent.move",
    "before.delete",
    "within.delete",
    "after.delete",
    "before.discard",
    "within.discard",
    "after.discard",
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
    "after.step",
    "before.validated",
    "before.tested",
)


@dataclass(frozen=True)
class _Armed:
    name: str
    first: int
    last: float
    """The first and the last visit that count."""
    error: int
    """The errno to raise; 0 kills."""


def _arm(setting: str) -> _Armed:
    place, _, error = setting.partition("=")
    name, _, visits = place.partition(":")
    if name not in DAEMON + TRAINING:
        raise ValueError(f"the names are {', '.join(DAEMON + TRAINING)}")
    first, _, last = visits.partition("-")
    armed = _Armed(name, int(first or 1), int(last) if last else math.inf, getattr(errno, error) if error else 0)
    if armed.first < 1:
        raise ValueError("visits are counted from 1")
    return armed


class _Failpoint:
    def __init__(self, armed: _Armed) -> None:
        self._armed = armed
        self._visits = itertools.count(1)

    def __call__(self, name: str) -> None:
        if name != self._armed.name:
            return
        if self._armed.first <= next(self._visits) <= self._armed.last:
            if self._armed.error:
                raise OSError(self._armed.error, os.strerror(self._armed.error))
            os.kill(os.getpid(), signal.SIGKILL)


def _nothing(_name: str) -> None:
    return


_setting = os.environ.get(VARIABLE)
try:
    _armed = _arm(_setting) if _setting else None
except (ValueError, AttributeError) as _problem:
    # Nothing has begun yet, in whatever program this is: the sentence is all there is to say.
    raise SystemExit(f'{VARIABLE}="{_setting}" is not name, name:visit or name=ERRNO: {_problem}') from None
reach = _Failpoint(_armed) if _armed else _nothing


def armed(name: str) -> bool:
    """Whether a place is armed, for one that exists only then (between the two halves of a write)."""
    return _armed is not None and _armed.name == name
