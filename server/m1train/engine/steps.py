"""One optimizer step after the other: the batch, forward, backward, the gradient's norm, the optimizer.

What is trained at a step is a pure function of the weights and the step's number; where the training stands, and what
else there is to do, is the loop's business. A tuning times the very same steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from m1.errors import M1Error, Reason
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from m1train.engine.batches import Batches, Feed, Inputs
from m1train.engine.device import Device
from m1train.engine.stopwatch import Stopwatch
from m1train.randomness import set_generators
from m1train.recipe import AnyRecipe, Moment


@dataclass(frozen=True)
class Trained:
    """What a step says of itself."""

    loss: float
    grad_norm: float
    lr: float
    logits: Tensor
    """[B, C]"""
    labels: Tensor
    """[B]"""

    def metrics(self) -> dict[str, float]:
        """By their keys."""
        right = int((self.logits.argmax(1) == self.labels).sum())
        values = {"loss": self.loss, "accuracy": right / len(self.labels), "lr": self.lr, "grad_norm": self.grad_norm}
        return {f"train/{key}": value for key, value in values.items()}


class Steps:
    """The steps of a training. Close it: it may have a thread."""

    def __init__(
        self, recipe: AnyRecipe, device: Device, model: nn.Module, optimizer: Optimizer, batches: Batches
    ) -> None:
        self.stopwatch = Stopwatch(time.perf_counter)
        self._recipe = recipe
        self._device = device
        self._optimizer = optimizer
        self._batches = batches
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._compiled = device.compiled(model)
        self._feed = Feed(self._prepare, device.profile.prefetch, recipe.config.epochs * batches.steps_per_epoch)

    def close(self) -> None:
        """End what prepares batches ahead."""
        self._feed.close()

    def rest(self) -> None:
        """Return when nothing is being prepared."""
        self._feed.rest()

    def train(self, step: int, before_change: Callable[[], None] = lambda: None) -> Trained:
        """Train on the batch of a step, counted from 0; `before_change` is called when the weights are about to change.

        Raises:
            M1Error: NOT_FINITE, before anything has changed.
        """
        watch, scale = self.stopwatch, self._device.loss_scale
        with watch.step():
            with watch.phase("data"):
                batch = self._feed.take(step)
                inputs, labels = self._device.inputs(batch.inputs), self._device.labels(batch.labels)
            with watch.phase("forward"):
                set_generators(self._recipe.config.seed, step)
                with self._device.autocast():
                    logits = self._recipe.training_logits(self._compiled, inputs, batch.draw)
                    loss = self._recipe.loss(logits, labels)
                loss_value = _finite("loss", loss, step)
            with watch.phase("backward"):
                (loss * scale if scale != 1 else loss).backward()  # type: ignore[no-untyped-call]
                if scale != 1:
                    torch._foreach_div_([p.grad for p in self._parameters if p.grad is not None], scale)
                norm = clip_grad_norm_(self._parameters, self._recipe.clip_norm)
                norm_value = _finite("gradient's norm", norm, step)
            with watch.phase("optimizer"):
                before_change()
                moment = Moment(step, self._batches.steps_per_epoch, self._recipe.config.epochs)
                self._recipe.set_rates(self._optimizer, moment)
                self._optimizer.step()
                self._optimizer.zero_grad()
        watch.images(len(labels))
        return Trained(loss_value, norm_value, self._optimizer.param_groups[0]["lr"], logits, labels)

    def _prepare(self, step: int) -> Inputs:
        batch = self._batches.batch(*divmod(step, self._batches.steps_per_epoch))
        inputs = self._device.laid_out(self._recipe.training_inputs(batch.images, batch.draw))
        return Inputs(inputs, batch.labels, batch.draw)


def _finite(what: str, value: Tensor, step: int) -> float:
    number = value.item()
    if not math.isfinite(number):
        message = f"the {what} became {number} at step {step + 1}, and the training stopped before it"
        raise M1Error(Reason.NOT_FINITE, message, "try a smaller lr, or another seed", field="settings.lr")
    return number
