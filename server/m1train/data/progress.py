"""How far the reading of a dataset is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

Phase = Literal["download", "read"]
# Called with the phase, what is done and what there is in all (0 when that is not known): bytes of a download, images
# or documents of reading. May raise, to interrupt.
Progress = Callable[[Phase, int, int], None]

_INTERVAL_S = 0.1


def throttled(
    say: Callable[[str, int, int], None], look: Callable[[], None] = lambda: None
) -> Callable[[str, int, int], None]:
    """Make a progress that says the first, the last, and about ten a second in between; `look` is called each time."""
    last = [-1.0]

    def progress(phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - last[0] >= _INTERVAL_S or done == total:
            last[0] = now
            say(phase, done, total)
            look()

    return progress
