"""Readings of the machine that are good to have: one that fails is unavailable, and ends nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


def optional(read: Callable[[], _T | None]) -> _T | None:
    """Give what a reading says; None for one that fails.

    What fails is a file that an odd kernel, a container or a virtual machine lacks or writes otherwise, and psutil
    passes on whatever that leads to: OSError, ValueError, KeyError, IndexError, RuntimeError and errors of its own.
    """
    try:
        return read()
    except Exception as error:  # noqa: BLE001 - see above
        _log.debug("a reading of the machine is unavailable: %s: %s", type(error).__name__, error)
        return None
