"""Progress that is said often enough, and not for each file."""

from __future__ import annotations

import time
from collections.abc import Callable

_INTERVAL_S = 0.1


def throttled(
    say: Callable[[str, int, int], None], heed: Callable[[], None] = lambda: None
) -> Callable[[str, int, int], None]:
    """Make a progress that says the first, the last, and about ten a second in between; `heed` is called each time."""
    last = [-1.0]

    def progress(phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - last[0] >= _INTERVAL_S or done == total:
            last[0] = now
            say(phase, done, total)
            heed()

    return progress
