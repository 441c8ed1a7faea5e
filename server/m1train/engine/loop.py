"""The training loop, from wherever it stands to its end.

Where it stands is two counters: steps done and epochs validated. What comes next is a pure function of them
(`position`), so a training that was interrupted (within an epoch, at its end, in a validation, in the test)
goes on by the same code as one that was not. Between two steps, and between two batches of an evaluation, it heeds
what the daemon wants:

    stop    leave
    yield   write a checkpoint, leave when it is durable; when it cannot be written, fail, and say so
    hold    say so, wait, say when it goes on; checkpoint requests are served meanwhile
    checkpoint = n   have one written, while the training goes on; or announce the one of this step again

Before a step it has a checkpoint written when the last one is older than the work that may be at risk. Copying the
state for a checkpoint goes on beside the forward and the backward pass; before the optimizer step it is awaited.

The test comes after the last checkpoint, so an interrupted test is repeated, on the same weights.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from m1.errors import M1Error, Reason
from m1.failpoints import reach
from m1.jobdir import Want
from m1.journal import Continued, Held, Metrics, Phase, Plan, Report
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer

from m1train.checkpoints.files import Origin, State
from m1train.checkpoints.snapshot import Snapshot
from m1train.checkpoints.writer import CheckpointWriter
from m1train.data.cache import Dataset, Split
from m1train.engine.batches import Batches
from m1train.engine.device import Device
from m1train.engine.evaluation import Evaluation, evaluate
from m1train.engine.position import Duty, Position, at_risk, due
from m1train.engine.steps import Steps
from m1train.job.control import Control, Leave
from m1train.job.journal import Journal
from m1train.recipe import AnyRecipe
from m1train.task.classifier.metrics import accuracy, class_accuracy

log = logging.getLogger(__name__)


@dataclass
class Loop:
    """A training with all that it works on."""

    recipe: AnyRecipe
    device: Device
    model: nn.Module
    optimizer: Optimizer
    dataset: Dataset
    batches: Batches
    validation_images: NDArray[np.int64]
    position: Position
    fingerprint: Mapping[str, str | int]
    approximate: Sequence[str]
    origin: Origin
    control: Control
    journal: Journal
    writer: CheckpointWriter
    clock: Callable[[], float] = time.monotonic
    """What the age of the last checkpoint is counted by; nothing that is trained depends on it."""

    def run(self) -> None:
        """Train to the end, with the last checkpoint durable.

        Raises:
            Leave: the daemon wants this process to go.
            M1Error: NOT_FINITE; DISK_FULL for a checkpoint that must be durable.
        """
        config, position, steps_per_epoch = self.recipe.config, self.position, self.batches.steps_per_epoch
        self.journal.append(
            Plan(position.step, position.step // steps_per_epoch, config.epochs * steps_per_epoch, config.epochs)
        )
        self._steps = Steps(self.recipe, self.device, self.model, self.optimizer, self.batches)
        try:
            self._go_on()
        finally:
            self._steps.close()

    def _go_on(self) -> None:
        config, position, steps_per_epoch = self.recipe.config, self.position, self.batches.steps_per_epoch
        self._snapshot: Snapshot | None = None
        position.saved_at_s = self.clock()
        phase = None
        while True:
            self._heed()
            every, validates = config.checkpoint_every_epochs, len(self.validation_images) > 0
            duty = due(position, steps_per_epoch, config.epochs, every, validates)
            if duty is not phase and duty in (Duty.TRAIN, Duty.VALIDATE, Duty.TEST):
                self.journal.append(Phase(duty.value))
                phase = duty
            match duty:
                case Duty.TRAIN:
                    if at_risk(position, self.clock(), config.checkpoint_every_s):
                        self._checkpoint()
                    self._step()
                case Duty.VALIDATE:
                    self._validate()
                case Duty.CHECKPOINT:
                    self._checkpoint()
                case Duty.TEST:
                    self._test()
                case Duty.FINISH:
                    self.writer.wait_for(position.step)
                    return

    def _step(self) -> None:
        position = self.position
        trained = self._steps.train(position.step, self._let_the_copy_end)
        position.step += 1
        position.validation = {}
        reach("after.step")
        if position.step % self.recipe.config.metrics_every == 0:
            self._record(trained.metrics() | self._steps.stopwatch.read())

    def _let_the_copy_end(self) -> None:
        if self._snapshot is not None:
            self._snapshot.wait()
            self._snapshot = None

    def _validate(self) -> None:
        began = time.perf_counter()
        result = self._evaluate(self.dataset.train, self.validation_images)
        self._finite_loss("validation", result)
        reach("before.validated")
        self.position.validated_epochs = self.position.step // self.batches.steps_per_epoch
        self.position.validation = {"val/loss": result.loss, "val/accuracy": accuracy(result.confusion)}
        self._record(self.position.validation)
        log.info(
            "epoch %d of %d (step %d): validation loss %.4f, accuracy %.2f %% (%.1f s)",
            self.position.validated_epochs,
            self.recipe.config.epochs,
            self.position.step,
            result.loss,
            100 * accuracy(result.confusion),
            time.perf_counter() - began,
        )

    def _test(self) -> None:
        split = self.dataset.test
        result = self._evaluate(split, np.arange(len(split.labels)))
        self._finite_loss("test", result)
        reach("before.tested")
        self._record({"test/loss": result.loss, "test/accuracy": accuracy(result.confusion)})
        classes = list(self.dataset.manifest.classes)
        self.journal.append(Report(classes, class_accuracy(result.confusion), result.confusion.tolist()))
        self.position.tested = True
        log.info(
            "test: loss %.4f, accuracy %.2f %% of %d images",
            result.loss,
            100 * accuracy(result.confusion),
            len(split.labels),
        )

    def _evaluate(self, split: Split, indices: NDArray[np.int64]) -> Evaluation:
        n_classes = len(self.dataset.manifest.classes)
        return evaluate(self.recipe, self.model, self.device, split, indices, n_classes, self._heed)

    def _finite_loss(self, what: str, result: Evaluation) -> None:
        if not math.isfinite(result.loss):
            message = f"the {what} loss is {result.loss} after step {self.position.step}"
            raise M1Error(Reason.NOT_FINITE, message, "try a smaller lr, or another seed", field="settings.lr")

    def _record(self, values: Mapping[str, float]) -> None:
        epoch = self.position.step // self.batches.steps_per_epoch
        self.journal.append(Metrics(self.position.step, epoch, dict(values)))

    def _checkpoint(self) -> None:
        position = self.position
        state = State(
            step=position.step,
            epoch=position.step // self.batches.steps_per_epoch,
            validated_epochs=position.validated_epochs,
            validation=dict(position.validation),
            best=None,  # the writer knows it
            fingerprint=self.fingerprint,
            time=time.time(),
            approximate=self.approximate,
            job=self.origin,
        )
        if self.writer.has(position.step):
            self.writer.announce(state, position.request)
        else:
            self._snapshot = Snapshot(self.model, self.optimizer)
            self.writer.write(state, position.request, self._snapshot)
        position.saved = (position.step, position.validated_epochs)
        position.saved_at_s = self.clock()

    def _heed(self) -> None:
        held = False
        while True:
            self.journal.settle()
            desired = self.control.look()
            if desired.want is Want.STOP:
                raise Leave("stopped")
            wanted = desired.checkpoint > self.position.request
            self.position.request = max(desired.checkpoint, self.position.request)
            if wanted or desired.want is Want.YIELD:
                self._checkpoint()
            if desired.want is Want.YIELD:
                self.writer.wait_for(self.position.step)
                raise Leave("yielded")
            if desired.want is Want.RUN:
                if held:
                    self.journal.append(Continued(self.position.step))
                return
            if not held:
                self.journal.append(Held(self.position.step))
                held = True
            self.control.rest()
