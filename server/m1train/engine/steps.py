"""One optimizer step after the other: batches that are ready in time, and the training that learns from them.

Where the training stands, and what else there is to do, is the loop's business. A tuning times the very same steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from m1train.engine.batches import Batches, Drawn, Feed
from m1train.engine.stopwatch import Stopwatch
from m1train.engine.training import Stepped, Training
from m1train.task.recipe import Moment


class Steps:
    """The steps of a training. Close it: it may have a thread."""

    def __init__(self, training: Training, batches: Batches) -> None:
        self.timer = Stopwatch(time.perf_counter)
        self._training = training
        self._batches = batches
        self._epochs: int = training.task.config.epochs
        # What draws from the global generators to make a sample cannot do so beside a step, which draws from them, too.
        ahead = 0 if batches.draws_from_generators else training.device.profile.prefetch
        self._feed = Feed(self._prepare, ahead, self._epochs * batches.steps_per_epoch)

    def close(self) -> None:
        """End what prepares batches ahead."""
        self._feed.close()

    def rest(self) -> None:
        """Return when nothing is being prepared."""
        self._feed.rest()

    def train(self, step: int, before_change: Callable[[], None] = lambda: None) -> Stepped:
        """Train on the batch of a step, counted from 0; `before_change` is called when the weights are about to change.

        Raises:
            M1Error: NOT_FINITE, before anything has changed.
        """
        moment = Moment(step, self._batches.steps_per_epoch, self._epochs)
        return self._training.step(moment, lambda: self._feed.take(step), self.timer, before_change)

    def _prepare(self, step: int) -> Drawn:
        return self._training.training_batch(self._batches.batch(*divmod(step, self._batches.steps_per_epoch)))
