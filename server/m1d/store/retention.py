"""What is forgotten, and when: a little at a time, so that nobody waits for it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable

from m1d.home.config import Config
from m1d.store import Store

_log = logging.getLogger(__name__)

_INTERVAL_S = 60.0
# One piece takes a few milliseconds, and the loop turns in between.
_PIECE = 2000
_DAY_S = 86_400.0


def forget(store: Store, config: Config, now: float) -> bool:
    """Remove one piece of what is kept no longer; whether there may be more."""
    events = store.forget_events(store.revision - config.retained_events + 1, _PIECE)
    points = store.forget_points(now - config.single_points_days * _DAY_S, _PIECE)
    return events == _PIECE or points > 0


async def run(store: Store, config: Config, clock: Callable[[], float]) -> None:
    """Forget what is due, now and every minute."""
    while True:
        try:
            while forget(store, config, clock()):
                await asyncio.sleep(0)
        except sqlite3.Error as error:
            _log.error("old events and points could not be removed, which is tried again: %s", error)
        await asyncio.sleep(_INTERVAL_S)
