"""Where a step's time goes, summed up until it is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

PHASES = ("data", "forward", "backward", "optimizer")


class Stopwatch:
    """Seconds by phase since the last record."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._reset()

    def _reset(self) -> None:
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._steps = self._samples = 0
        self._total = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a part of a step."""
        began = self._clock()
        yield
        self._seconds[name] += self._clock() - began

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time a step."""
        began = self._clock()
        yield
        self._total += self._clock() - began
        self._steps += 1

    def samples(self, n: int) -> None:
        """Count the samples of a step."""
        self._samples += n

    def read(self) -> dict[str, float]:
        """Give the samples per second, and seconds of each phase per step, since the last reading."""
        values = {f"train/seconds/{name}": seconds / self._steps for name, seconds in self._seconds.items()}
        values["train/samples_per_s"] = self._samples / self._total
        self._reset()
        return values
