"""The hub: from a commit to everybody who watches, without a queue a reader.

It keeps the newest events in one ring that all watchers read by their own cursor, and wakes them. So a watcher costs
a cursor, whether it reads or not; one that falls out of the ring goes on from the store.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Sequence

from m1.v1 import event_pb2

CAPACITY_EVENTS = 4096


class Hub:
    """The newest events, and the bell that rings when there are more. Used from the event loop's thread."""

    def __init__(self, revision: int, capacity: int = CAPACITY_EVENTS) -> None:
        """Begin after the last stored revision."""
        self._ring: deque[event_pb2.Event] = deque(maxlen=capacity)
        self._before_first = revision
        self._bell = asyncio.Event()
        self.closed = False

    def publish(self, events: Sequence[event_pb2.Event]) -> None:
        """Take in events with the next revisions, and wake the watchers."""
        for event in events:
            if len(self._ring) == self._ring.maxlen:
                self._before_first = self._ring[0].revision
            self._ring.append(event)
        self._ring_bell()

    def close(self) -> None:
        """Wake the watchers for the last time."""
        self.closed = True
        self._ring_bell()

    def since(self, cursor: int) -> list[event_pb2.Event] | None:
        """The events after a revision; None when the ring does not reach back that far."""
        if cursor < self._before_first:
            return None
        return list(itertools.islice(self._ring, cursor - self._before_first, None))

    @property
    def reaches_back_to(self) -> int:
        """The revision before the first one in the ring."""
        return self._before_first

    async def wait(self, timeout_s: float | None = None) -> None:
        """Return at the next bell, or when the time is over."""
        if self.closed:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._bell.wait()
        except TimeoutError:
            return

    def _ring_bell(self) -> None:
        self._bell.set()
        self._bell = asyncio.Event()
