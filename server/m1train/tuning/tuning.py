"""`m1ctl tune`: which profile trains a recipe fastest on this machine, measured with the recipe's own steps.

It trains on random samples, with a learning rate of 0, so that what is computed stays finite however long it goes on;
no dataset is needed, and nothing is learnt. All candidates live in this process, the best one so far and the one that
is tried: what a profile sets for the whole process is set before each trial.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import logging
import math
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import psutil
import torch
from m1.errors import M1Error
from m1.jobdir import Profile, Want
from m1.power import power_source
from m1.process.control import Control, StopRequested

from m1train.engine import device
from m1train.engine.batches import Batches, raw_batch
from m1train.engine.examples import examples, needs_of
from m1train.engine.memory import check_batch
from m1train.engine.steps import Steps
from m1train.engine.training import Training
from m1train.job.obey import check_stop
from m1train.measurements.context import MeasurementContext
from m1train.task.recipe import AnyTask
from m1train.tuning.choices import FIELDS, choices, read_machine
from m1train.tuning.search import MOST_PAIRS, CannotTryError, Search

log = logging.getLogger(__name__)

BUDGET_S = 180.0
"""For all trials together, the making of the candidates included."""
_TRIAL_S = 0.5
_MOST_STEPS = 200
_COMPILE_LIMIT_S = 60.0
_COMPILE_LOOK_S = 0.5
_SAMPLES = 256
# Trials are spread over the whole training, of which a recipe may make the parts unlike: by the golden ratio, so that
# any number of them is spread evenly.
_SPREAD = (math.sqrt(5) - 1) / 2


class Tuning:
    """A measurement of the profiles of a recipe."""

    def __init__(self, task: AnyTask, profile: Profile, fixed: Sequence[str], budget_s: float = BUDGET_S) -> None:
        """`profile` is where it starts, and what it compares with; `fixed` are the fields that stay as they are."""
        self._task = task
        self._start = replace(profile, origin="")
        self._fixed = fixed
        self._budget_s = budget_s

    def measure(self, context: MeasurementContext) -> None:
        """See m1train.measurements.context.Measurement."""
        machine = read_machine(self._start)
        trials = _Trials(self._task, context)
        power = power_source(psutil)

        def alternatives(name: str, now: Profile) -> list[tuple[Profile, str]]:
            found = [(choice.profile, choice.problem) for choice in choices(name, now, machine)]
            return [it for it in found if all(getattr(it[0], f) == getattr(self._start, f) for f in self._fixed)]

        context.plan(sum(not problem for name in FIELDS for _, problem in alternatives(name, self._start)) + 1)
        context.phase("warm up")

        def publish(search: Search, phase: str) -> None:
            if search.comparisons > 1:
                context.part_done({"tune/samples_per_s": trials.rates[search.best]})
            if context.done == context.total:
                context.plan(context.total + 1)
            context.phase(phase)
            context.found(search.chosen())

        search = Search(
            trials.trial,
            trials.forget,
            lambda: trials.spent_s,
            self._budget_s,
            alternatives,
            publish,
            unit=self._task.sample_unit,
        )
        try:
            search.run(self._start, FIELDS, self._fixed)
        except CannotTryError as error:
            raise error.__cause__ or error from None
        finally:
            trials.close()
        conditions = {
            "torch": importlib.metadata.version("torch"),
            "power": power if power == power_source(psutil) else "unknown",
        }
        context.found(search.chosen(), search.best, conditions)
        context.part_done({"tune/samples_per_s": trials.rates[search.best]})
        for finding in search.chosen():
            log.info("%s: %s %s %s", finding.title, finding.value, finding.unit, finding.note)


class _Trials:
    """Short trainings under different profiles."""

    def __init__(self, task: AnyTask, context: MeasurementContext) -> None:
        self.spent_s = 0.0
        self.rates: dict[Profile, float] = {}
        """Samples a second of each profile's last trial."""
        self._task = task
        self._context = context
        config = task.config
        self._batch_size: int = config.batch_size
        self._info, self._samples = examples(task, needs_of(task), _SAMPLES)
        n = len(self._samples)
        # As many batches an epoch as indices of them take little memory.
        n_batches = min(64, max(4, 2**18 // config.batch_size))
        indices = np.arange(n_batches * config.batch_size, dtype=np.int64) % n
        self._batches = Batches(self._samples, indices, config.batch_size, config.seed)
        self._rows = raw_batch(self._samples, np.arange(min(n, task.fit_samples)), None) if task.fit_samples else None
        self._candidates: dict[Profile, Steps] = {}
        self._n_steps = 0

    def trial(self, profile: Profile, number: int) -> tuple[float, bool]:
        """See m1train.tuning.search.Search.trial."""
        held = self._context.heed()
        began = time.perf_counter()
        try:
            steps = self._candidate(profile)
            device.switch(profile)
            seconds = self._timed(steps, profile, self._first_step(number), self._n_steps)
        except StopRequested:
            raise
        except Exception as error:
            raise CannotTryError(_words(error)) from error
        finally:
            self.spent_s += time.perf_counter() - began
        self.rates[profile] = 1 / seconds
        return seconds, held

    def forget(self, profile: Profile) -> None:
        """Free what a profile that is tried no more holds."""
        steps = self._candidates.pop(profile, None)
        if steps:
            steps.close()
        del steps
        gc.collect()

    def close(self) -> None:
        """Forget them all."""
        for profile in list(self._candidates):
            self.forget(profile)

    def _first_step(self, number: int) -> int:
        """The first step of a trial."""
        total = self._task.config.epochs * self._batches.steps_per_epoch
        return int(number * _SPREAD % 1 * max(1, total - self._n_steps - 1))

    def _candidate(self, profile: Profile) -> Steps:
        if profile not in self._candidates:
            device.switch(profile)
            with _compile_limit(self._context.control) if profile.compile else contextlib.nullcontext():
                self._candidates[profile] = self._made(profile)
        return self._candidates[profile]

    def _made(self, profile: Profile) -> Steps:
        """A candidate that has compiled and allocated what its steps need."""
        training = Training.assemble(self._task, device.place(profile), self._info, self._rows)
        check_batch(training, self._samples, self._batch_size)
        for group in training.optimizer.param_groups:
            group["initial_lr"] = 0.0
        steps = Steps(training, self._batches)
        try:
            step_s = self._timed(steps, profile, 0, 1) * self._batch_size
            if not self._n_steps:
                total = self._task.config.epochs * self._batches.steps_per_epoch
                self._n_steps = max(1, min(round(_TRIAL_S / step_s), _MOST_STEPS, total - 1))
            for step in self._unlike() if profile.compile else ():
                steps.train(step)
            steps.rest()
        except BaseException:
            steps.close()
            raise
        return steps

    def _unlike(self) -> list[int]:
        """A step of each epoch that trials train in: a recipe may have samples of another size there."""
        firsts = [self._first_step(number) for number in range(MOST_PAIRS)]
        trained = sorted({step for first in firsts for step in range(first, first + 1 + self._n_steps)})
        return list({step // self._batches.steps_per_epoch: step for step in trained}.values())

    def _timed(self, steps: Steps, profile: Profile, first: int, n: int) -> float:
        """The seconds that a sample takes, in the n steps after the first one."""
        steps.train(first)  # the caches warm, the epoch in its order, and ahead what is prepared ahead
        _finish(profile)
        began = time.perf_counter()
        for step in range(first + 1, first + 1 + n):
            steps.train(step)
        _finish(profile)
        seconds = time.perf_counter() - began
        steps.rest()
        return seconds / (n * self._batch_size)


def _finish(profile: Profile) -> None:
    """Return when the device has done all that it was given."""
    if profile.device == "cuda":
        torch.cuda.synchronize()
    elif profile.device == "mps":
        torch.mps.synchronize()


@contextlib.contextmanager
def _compile_limit(control: Control) -> Iterator[None]:
    """Let the compiler take only so long, and end it when the daemon wants this process to go.

    Raises:
        TimeoutError: it took longer.
        StopRequested: the daemon wants this process to go.
    """
    end = time.monotonic() + _COMPILE_LIMIT_S

    def look(*_: object) -> None:
        if control.look().want in (Want.STOP, Want.YIELD):
            raise InterruptedError("the tuning was interrupted")
        if time.monotonic() > end:
            raise TimeoutError(f"compiling took more than {_COMPILE_LIMIT_S:.0f} s")

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, _COMPILE_LOOK_S, _COMPILE_LOOK_S)
    try:
        yield
    except Exception as error:
        torch._dynamo.reset()
        check_stop(control)
        if time.monotonic() > end:  # whatever the compiler made of it
            raise TimeoutError(f"compiling took more than {_COMPILE_LIMIT_S:.0f} s") from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _words(error: Exception) -> str:
    """Why, in half a line."""
    text = error.message if isinstance(error, M1Error) else str(error).strip().split("\n", 1)[0]
    text = text or type(error).__name__
    return text if len(text) <= 120 else text[:117] + "..."
