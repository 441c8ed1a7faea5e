"""The training loop, from wherever it stands to its end.

Where it stands is two counters: steps done, and the step of the last validation. What comes next is a pure function of
them (`position`), so a training that was interrupted (within an epoch, at its end, in a validation, in the test) goes
on by the same code as one that was not. Between two steps, and between two batches of an evaluation, it obeys the
daemon (m1train.job.obey).

Before a step it has a checkpoint written when the last one is older than the work that may be at risk. Copying the
state for a checkpoint goes on beside the forward and the backward pass; before the optimizer step it is awaited.

A checkpoint that the job cannot end without (the last one, and a yield's) waits for a disk that is full, with the state
in memory: what was trained is not trained again.

The test comes after the last checkpoint, so an interrupted test is repeated, on the same weights.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from m1.checkpoint_state import Origin, State
from m1.errors import M1Error, Reason
from m1.failpoints import reach
from m1.jobdir import Desired, Want
from m1.journal import Metrics, Notice, Phase, Plan
from m1.process.control import Control, StopRequested
from m1.process.journal import Journal
from numpy.typing import NDArray

from m1train.checkpoints.snapshot import Snapshot
from m1train.checkpoints.writer import CheckpointWriter
from m1train.engine.batches import Batches
from m1train.engine.position import Action, Position, Rhythm, at_risk, due
from m1train.engine.steps import Steps
from m1train.engine.training import Training
from m1train.job.obey import obey
from m1train.job.results import Results
from m1train.task.recipe import DataInfo, Samples, Split, Table

log = logging.getLogger(__name__)

# Between two tries of a checkpoint that a full disk had no room for.
_FIRST_PAUSE_S, _LAST_PAUSE_S = 1.0, 30.0


@dataclass(frozen=True)
class Material:
    """What a training learns from and is judged by."""

    info: DataInfo
    train: Samples
    training: NDArray[np.int64]
    """Which samples of `train` are learnt from."""
    val: Samples
    """`train` again, where the data have no split for validation."""
    validation: NDArray[np.int64]
    """Which samples of `val` are validated on, held out where they are of `train`; none: nothing is validated."""
    test: Samples
    tested: NDArray[np.int64]
    """Which samples of `test` are tested on."""


@dataclass(frozen=True)
class Context:
    """The job that a training belongs to: what its checkpoints say of it, and where its news go."""

    fingerprint: Mapping[str, str | int]
    approximate: Sequence[str]
    origin: Origin
    control: Control
    journal: Journal
    writer: CheckpointWriter
    results: Results


class Loop:
    """A training with all that it works on."""

    def __init__(
        self,
        training: Training,
        material: Material,
        batches: Batches,
        position: Position,
        context: Context,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` counts how old the last checkpoint is, and what all takes; nothing that is trained depends on it."""
        self.context = context
        self._training = training
        self._material = material
        self._batches = batches
        self._position = position
        self._clock = clock
        config = training.task.config
        every = config.validate_every_steps or batches.steps_per_epoch
        self._rhythm = Rhythm(
            batches.steps_per_epoch,
            config.epochs,
            every if len(material.validation) else 0,
            config.checkpoint_every_epochs,
            config.checkpoint_every_steps,
        )

    def run(self) -> None:
        """Train to the end, with the last checkpoint durable.

        Raises:
            StopRequested: the daemon wants this process to go.
            M1Error: NOT_FINITE; DISK_FULL for a checkpoint that must be durable.
        """
        rhythm = self._rhythm
        self.context.journal.append(Plan(self._position.step, self._epoch(), rhythm.total_steps, rhythm.epochs))
        self._since_s = self._clock()
        self._steps = Steps(self._training, self._batches)
        try:
            self._go_on()
        finally:
            self._steps.close()

    def _go_on(self) -> None:
        position, every_s = self._position, self._training.task.config.checkpoint_every_s
        self._snapshot: Snapshot | None = None
        position.saved_at_s = self._clock()
        phase = None
        while True:
            self._obey()
            action = due(position, self._rhythm)
            if action is not phase and action in (Action.TRAIN, Action.VALIDATE, Action.TEST):
                self.context.journal.append(Phase(action.value))
                phase = action
            match action:
                case Action.TRAIN:
                    if at_risk(position, self._clock(), every_s):
                        self._checkpoint()
                    self._step()
                case Action.VALIDATE:
                    self._validate()
                case Action.CHECKPOINT:
                    self._checkpoint()
                case Action.TEST:
                    self._test()
                case Action.FINISH:
                    self._make_durable()
                    return

    def _epoch(self) -> int:
        return self._position.step // self._rhythm.steps_per_epoch

    def _step(self) -> None:
        position = self._position
        stepped = self._steps.train(position.step, self._let_the_copy_end)
        position.step += 1
        position.validation = {}
        reach("after.step")
        if position.step % self._training.task.config.metrics_every == 0:
            self._record(stepped.metrics() | self._steps.timer.read(), of_step=True)

    def _let_the_copy_end(self) -> None:
        if self._snapshot is not None:
            self._snapshot.wait()
            self._snapshot = None

    def _validate(self) -> None:
        measured = self._evaluate("val", self._material.val, self._material.validation)
        reach("before.validated")
        self._position.validated_step = self._position.step
        # What is no number (an F1 of nothing) chooses no checkpoint, and stands in none.
        self._position.validation = {key: value for key, value in measured.items() if math.isfinite(value)}
        self._record(measured)

    def _test(self) -> None:
        measured = self._evaluate("test", self._material.test, self._material.tested)
        reach("before.tested")
        self._record(measured)
        promised_s = self._training.task.promised_s
        if promised_s:
            self.context.results.store([_promise(promised_s, self._took_s())], self._position.step)
        self._position.tested = True

    def _evaluate(self, split: Split, samples: Samples, indices: NDArray[np.int64]) -> dict[str, float]:
        began, step = time.perf_counter(), self._position.step
        evaluation = self._training.task.evaluation(self._material.info, split)
        self._training.evaluate(samples, indices, evaluation, self._obey)
        measured = {f"{split}/{key}": float(value) for key, value in evaluation.metrics().items()}
        if not math.isfinite(measured[f"{split}/loss"]):
            what = "validation" if split == "val" else "test"
            message = f"the {what} loss is {measured[f'{split}/loss']} after step {step}"
            raise M1Error(Reason.NOT_FINITE, message, "try a smaller lr, or another seed", field="settings.lr")
        with self._training.judging():
            self.context.results.store(evaluation.results(self._training.model), step)
        words = ", ".join(f"{key} {value:.4g}" for key, value in measured.items())
        log.info("step %d: %s of %d samples (%.1f s)", step, words, len(indices), time.perf_counter() - began)
        return measured

    def _took_s(self) -> float:
        """What the training has taken, in all attempts, holds not counted."""
        return self._position.took_s + self._clock() - self._since_s

    def _record(self, values: Mapping[str, float], *, of_step: bool = False) -> None:
        self.context.journal.append(Metrics(self._position.step, self._epoch(), dict(values), of_step))

    def _make_durable(self) -> None:
        """Return when the checkpoint of where it stands is durable, however long the disk has no room for it.

        Raises:
            StopRequested: the daemon wants this process to stop.
            M1Error: DISK_FULL on SIGTERM; NOT_ALLOWED, when something else than room is missing.
        """
        context, began_s, pause_s = self.context, self._clock(), _FIRST_PAUSE_S
        while True:
            try:
                context.writer.wait_for(self._position.step)
                break
            except M1Error as error:
                if error.reason is not Reason.DISK_FULL or context.control.terminated:
                    raise
                if pause_s == _FIRST_PAUSE_S:
                    said = f"{error.message}: it waits for space, with what was trained in memory"
                    log.warning("%s", said)
                    context.journal.append(Notice("error", said))
                    context.journal.append(Phase("wait for space"))
            until_s, pause_s = self._clock() + pause_s, min(2 * pause_s, _LAST_PAUSE_S)
            while self._clock() < until_s and not context.control.terminated:
                if context.control.look().want is Want.STOP:
                    raise StopRequested("stopped")
                context.journal.settle()
                context.control.rest()
            self._checkpoint(needed=True)
        if pause_s > _FIRST_PAUSE_S:
            self._since_s += self._clock() - began_s

    def _checkpoint(self, *, needed: bool = False) -> None:
        position, context = self._position, self.context
        needed = needed or position.step >= self._rhythm.total_steps
        state = State(
            step=position.step,
            epoch=self._epoch(),
            validated_epochs=position.validated_step // self._rhythm.steps_per_epoch,
            validated_step=position.validated_step,
            validation=dict(position.validation),
            best=None,  # the writer knows it
            fingerprint=context.fingerprint,
            time=time.time(),
            approximate=context.approximate,
            job=context.origin,
            took_s=self._took_s(),
        )
        if context.writer.has(position.step):
            context.writer.announce(state, position.request)
        else:
            self._snapshot = Snapshot(self._training.model, self._training.optimizer)
            context.writer.write(state, position.request, self._snapshot, needed=needed)
        position.saved = (position.step, position.validated_step)
        position.saved_at_s = self._clock()

    def _obey(self) -> None:
        before_s = self._clock()
        if obey(self.context.control, self.context.journal, self._position.step, self._serve):
            self._since_s += self._clock() - before_s

    def _serve(self, desired: Desired) -> None:
        """Have a checkpoint written that is asked for, and wait for the one that a yield needs."""
        asked = desired.checkpoint > self._position.request
        self._position.request = max(desired.checkpoint, self._position.request)
        leaves = desired.want is Want.YIELD
        if asked or leaves:
            self._checkpoint(needed=leaves)
        if leaves:
            self._make_durable()


def _promise(promised_s: float, took_s: float) -> Table:
    """The result that says how good a promise was."""
    columns, row = ("promised", "took", "ratio"), (promised_s, round(took_s, 1), round(took_s / promised_s, 3))
    title = "The time that was promised, and what it took from the first step to the end of the test."
    return Table("budget", title, columns, [row], units={"promised": "s", "took": "s"})
