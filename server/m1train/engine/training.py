"""A training put together: a task's model and optimizer on a device. Assembled in one place, stepped in one place.

An attempt, the rehearsal of a recipe's file, a tuning, the measurements and the estimate of memory all train by this.
What is trained at a step is a pure function of the weights, the batch and the step's number.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from m1.errors import M1Error, Reason
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from m1train.engine.batches import Drawn, raw_batch
from m1train.engine.device import Device
from m1train.engine.stopwatch import Stopwatch
from m1train.randomness import Draw, initial_weights, set_generators
from m1train.task.recipe import AnyTask, Batch, DataInfo, Evaluation, Moment, Samples


@dataclass(frozen=True)
class Stepped:
    """What a step says of itself."""

    loss: float
    grad_norm: float
    lr: float
    measured: Mapping[str, Tensor | float]
    """What the task measured, by key."""

    def metrics(self) -> dict[str, float]:
        """Give the numbers by their keys."""
        measured = {
            key: value.detach().item() if isinstance(value, Tensor) else float(value)
            for key, value in self.measured.items()
        }
        values = {"loss": self.loss, **measured, "lr": float(self.lr), "grad_norm": self.grad_norm}
        return {f"train/{key}": value for key, value in values.items()}


class Training:
    """A model and its optimizer, ready to learn."""

    def __init__(self, task: AnyTask, device: Device, model: nn.Module, optimizer: Optimizer) -> None:
        self.task = task
        self.device = device
        self.model = model
        self.optimizer = optimizer
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._callable = device.compiled(model)

    @classmethod
    def assemble(cls, task: AnyTask, device: Device, info: DataInfo, rows: Batch | None) -> Training:
        """Build the model, bring it to the device, and make its optimizer.

        Args:
            task: What is trained.
            device: Where.
            info: What the model may know of its data.
            rows: Raw training samples, by which is set what follows from the data; None for a training that is to be
                restored from a checkpoint.
        """
        with initial_weights(task.config.seed):
            model = task.network(info)
        model = device.prepare_model(model)
        if rows is not None:
            task.fit_network(model, rows)
        return cls(task, device, model, device.prepare_optimizer(task.optimizer(model)))

    def training_batch(self, drawn: Drawn) -> Drawn:
        """Make of raw samples what the model takes, still on the CPU; what a thread may do beside a step."""
        return Drawn(self.device.laid_out(self.task.training_batch(drawn.batch, drawn.draw)), drawn.draw)

    def loss(self, batch: Batch, draw: Draw) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Run the forward pass on a batch of the device: the mean loss, and what the task measured."""
        with self.device.autocast():
            return self.task.training_loss(self._callable, batch, draw)

    def backward(self, loss: Tensor) -> Tensor:
        """Run the backward pass, and clip the gradients; their norm before."""
        self.add_gradients(loss)
        return self.clip()

    def add_gradients(self, loss: Tensor) -> None:
        """Run the backward pass of a part of a batch."""
        scale = self.device.loss_scale
        (loss * scale if scale != 1 else loss).backward()  # type: ignore[no-untyped-call]

    def clip(self) -> Tensor:
        """Clip the gradients of all parts; their norm before."""
        scale = self.device.loss_scale
        if scale != 1:
            torch._foreach_div_([p.grad for p in self._parameters if p.grad is not None], scale)
        return clip_grad_norm_(self._parameters, self.task.clip_norm)

    def update(self, at: Moment) -> None:
        """Change the weights by their gradients, at the rates of a moment."""
        self.task.set_rates(self.optimizer, at)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def step(
        self,
        at: Moment,
        take: Callable[[], Drawn],
        timer: Stopwatch,
        before_change: Callable[[], None] = lambda: None,
    ) -> Stepped:
        """Learn from a batch; `before_change` is called when the weights are about to change.

        Raises:
            M1Error: NOT_FINITE, before anything has changed.
        """
        with timer.step():
            with timer.phase("data"):
                drawn = take()
                batch = self.device.to_device(drawn.batch)
            with timer.phase("forward"):
                set_generators(self.task.config.seed, at.step)
                loss, measured = self.loss(batch, drawn.draw)
                loss_value = _finite("loss", loss, at.step)
            with timer.phase("backward"):
                norm_value = _finite("gradient's norm", self.backward(loss), at.step)
            with timer.phase("optimizer"):
                before_change()
                self.update(at)
        timer.samples(self.task.size(batch))
        return Stepped(loss_value, norm_value, self.optimizer.param_groups[0]["lr"], measured)

    def evaluate(
        self,
        samples: Samples,
        indices: NDArray[np.int64],
        evaluation: Evaluation,
        between: Callable[[], None] = lambda: None,
    ) -> Evaluation:
        """Judge the model on some samples; `between` is called between two batches and may raise."""
        size = self.task.evaluation_batch_size
        for start in range(0, len(indices), size):
            between()
            rows = raw_batch(samples, indices[start : start + size], None)
            with self.judging():
                evaluation.add(self.model, self.device.to_device(self.task.evaluation_batch(rows)))
        return evaluation

    @contextlib.contextmanager
    def judging(self) -> Iterator[None]:
        """Inside, the model is in evaluation mode, without gradients, in the device's autocast."""
        self.model.eval()
        try:
            with torch.inference_mode(), self.device.autocast():
                yield
        finally:
            self.model.train()


def _finite(what: str, value: Tensor, step: int) -> float:
    number = value.item()
    if not math.isfinite(number):
        message = f"the {what} became {number} at step {step + 1}, and the training stopped before it"
        raise M1Error(Reason.NOT_FINITE, message, "try a smaller lr, or another seed", field="settings.lr")
    return number
