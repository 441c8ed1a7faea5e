"""Live system stats, sampled when somebody looks and at most as often as anybody asks."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from m1d.jobs.job import Job
from m1d.machine.stats import Stats, StatsSampler


class LiveStats:
    """One sampler for all that watch. Used from the event loop's thread."""

    def __init__(self, disk: Path, active: Callable[[], Job | None]) -> None:
        """`active` gives the job that holds the machine."""
        self._sampler = StatsSampler(disk, time.time)
        self._active = active
        self._last: tuple[float, Stats] | None = None

    def sample(self, interval_s: float) -> Stats:
        """A sample; the last one, if it is younger than nine tenths of the interval."""
        now = time.monotonic()
        if self._last and now - self._last[0] < 0.9 * interval_s:
            return self._last[1]
        job = self._active()
        process = job.attempt.process if job else None
        stats = self._sampler.sample((job.id, process.pid) if job and process else None)
        self._last = (now, stats)
        return stats
