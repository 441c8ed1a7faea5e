"""How fast this machine trains a recipe: measured for some seconds, by the engine's own steps, for a plan.

As a tuning does, it trains on random samples with a learning rate of 0, so that what is computed stays finite; no data
set is needed, and nothing is learnt. What it takes is for the plan to bound: a question is answered by as few steps as
give a median.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from m1.checkpoint_state import State
from m1.jobdir import checkpoints_path

from m1train.checkpoints import files
from m1train.checkpoints.snapshot import Snapshot
from m1train.engine.batches import Batches, raw_batch
from m1train.engine.device import Device
from m1train.engine.examples import examples, needs_of
from m1train.engine.memory import check_batch
from m1train.engine.steps import Steps
from m1train.engine.training import Training
from m1train.task.planning import StepTime
from m1train.task.recipe import AnyTask, Samples

# A median of at least three, of steps that take a second together; of slow ones two must do.
_LEAST_STEPS, _ENOUGH_STEPS, _MOST_STEPS = 2, 3, 9
_ENOUGH_S, _SLOW_S = 1.0, 1.0
# Where it has taken this long already, one step more than the first must do, too.
_PATIENCE_S = 12.0
_MOST_SAMPLES = 1024
# An evaluation that is not timed: it makes what the others find made.
_FEW = 32


class MeasuredPace:
    """This machine's pace with a profile. See m1train.task.planning.Pace, which it is."""

    def __init__(self, make: Callable[[Any], AnyTask], device: Device) -> None:
        """`make` makes the task of some settings."""
        self._make = make
        self._device = device
        self._began = time.perf_counter()

    def step(self, config: Any) -> StepTime:
        """See Pace.

        Raises:
            M1Error: TOO_LARGE, for a batch that does not fit into the memory.
        """
        training, samples = self._assembled(config)
        check_batch(training, samples, len(samples))
        for group in training.optimizer.param_groups:
            group["initial_lr"] = 0.0
        size = training.task.config.batch_size
        indices = np.arange(size * (_MOST_STEPS + 1), dtype=np.int64) % len(samples)
        steps = Steps(training, Batches(samples, indices, size, training.task.config.seed))
        try:
            first_s = _seconds(steps, 0)
            each: list[float] = []
            while not self._enough(each):
                each.append(_seconds(steps, len(each) + 1))
        finally:
            steps.close()
        return StepTime(first_s, statistics.median(each))

    def evaluation(self, config: Any) -> float:
        """See Pace."""
        training, samples = self._assembled(config)
        size = min(len(samples), training.task.evaluation_batch_size)
        for n in (min(_FEW, size), size):
            began = time.perf_counter()
            evaluation = training.task.evaluation(self._info, "test")
            training.evaluate(samples, np.arange(n, dtype=np.int64), evaluation)
            evaluation.metrics()
        return (time.perf_counter() - began) / size

    def checkpoint(self, config: Any) -> float:
        """See Pace: it is written, durably, into a directory that is removed."""
        training, _ = self._assembled(config)
        state = State(0, 0, 0, {}, None, {}, time.time())
        with tempfile.TemporaryDirectory(prefix="m1train-plan-") as directory:
            path = Path(directory)
            checkpoints_path(path).mkdir()
            began = time.perf_counter()
            files.write(path, state, *Snapshot(training.model, training.optimizer).tensors())
            return time.perf_counter() - began

    def _assembled(self, config: Any) -> tuple[Training, Samples]:
        task = self._make(config)
        n = min(_MOST_SAMPLES, max(task.config.batch_size, task.evaluation_batch_size))
        self._info, samples = examples(task, needs_of(task), n)
        rows = raw_batch(samples, np.arange(min(n, task.fit_samples)), None) if task.fit_samples else None
        return Training.assemble(task, self._device, self._info, rows), samples

    def _enough(self, seconds: list[float]) -> bool:
        """Return True if there are as many seconds of a step as their median needs."""
        if len(seconds) == _MOST_STEPS or (seconds and time.perf_counter() - self._began > _PATIENCE_S):
            return True
        if len(seconds) >= _LEAST_STEPS and min(seconds) > _SLOW_S:
            return True
        return len(seconds) >= _ENOUGH_STEPS and sum(seconds) >= _ENOUGH_S


def _seconds(steps: Steps, step: int) -> float:
    began = time.perf_counter()
    steps.train(step)
    return time.perf_counter() - began
