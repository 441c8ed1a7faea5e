"""How fast the steps go, measured from the steps that were seen, and when the last one will be done."""

from __future__ import annotations

from collections import deque

_WINDOW_S = 120.0


class Throughput:
    """Steps over the last two minutes of training. Times are those of the events, so a replay measures the same."""

    def __init__(self, window_s: float = _WINDOW_S) -> None:
        self._window_s = window_s
        self._seen: deque[tuple[float, int]] = deque()

    def see(self, time_s: float, step: int) -> None:
        """Take in a step. Going back (a retry from a checkpoint, a clock) starts the measure anew."""
        if self._seen:
            last_time_s, last_step = self._seen[-1]
            if step < last_step or time_s < last_time_s:
                self.reset()
            elif step == last_step:
                return
        self._seen.append((time_s, step))
        while len(self._seen) > 2 and self._seen[1][0] <= time_s - self._window_s:
            self._seen.popleft()

    def reset(self) -> None:
        """Forget the steps so far: the training stands still, and what comes after is another stretch."""
        self._seen.clear()

    @property
    def steps_per_s(self) -> float | None:
        """None until two steps at different times were seen."""
        if len(self._seen) < 2:
            return None
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else None

    def eta_s(self, total_steps: int, now_s: float) -> float | None:
        """Return the seconds from now until the last step, at this pace; None when it can't be told."""
        pace = self.steps_per_s
        if pace is None or not total_steps:
            return None
        last_s, last = self._seen[-1]
        return max(0.0, (total_steps - last) / pace - max(0.0, now_s - last_s))
