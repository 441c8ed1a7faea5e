"""What a recipe is: a model, its loss, its optimizer, its schedule, and how images become inputs.

The engine calls it; a recipe knows nothing of daemons, journals, checkpoints, ranks or the clock. A recipe of one's own
is a class that derives from Recipe, has a `model` and an `optimizer`, and takes the rest from here. Its settings are
its `Config`, a frozen dataclass that derives from TrainingConfig, each declared with `setting`: a default, a sentence,
and for a number its bounds. Its summary is the first line of its docstring. `m1ctl recipes new` writes one.

What is random in the augmentation comes in as a Draw: a pure function of seed, epoch and sample. Before each forward
pass the engine also sets torch's, NumPy's and Python's generators from seed and step, so that whatever a model draws
from them (torch's own dropout) is the same after a resume.

What a checkpoint holds is the model's and the optimizer's state. Whatever else changes while it trains is lost at a
resume: a recipe's file is tried for two steps, the second one also as after a resume, and refused when they differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Generic

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from m1train.randomness import Draw, Stream
from m1train.task.classifier.augment import as_floats, mirrored, normalised
from m1train.task.settings import ConfigT, TrainingConfig, setting

__all__ = ["AnyRecipe", "Draw", "Moment", "Recipe", "Stream", "TrainingConfig", "setting"]

# CIFAR-10's channels, as the recipe that this project set out from normalised them.
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


@dataclass(frozen=True)
class Moment:
    """Where a training stands before a step."""

    step: int
    """Optimizer steps done."""
    steps_per_epoch: int
    epochs: int

    @property
    def epoch(self) -> int:
        """Counted from 0."""
        return self.step // self.steps_per_epoch

    @property
    def fraction(self) -> float:
        """The part of the whole training that is done, of [0, 1)."""
        return self.step / (self.steps_per_epoch * self.epochs)


class Recipe(Generic[ConfigT]):
    """A classifier of images: [B, 32, 32, 3] uint8 in, [B, C] logits out."""

    Config: ClassVar[type[TrainingConfig]] = TrainingConfig
    """The settings: a frozen dataclass that derives from TrainingConfig."""
    default_data: ClassVar[str] = "cifar10"

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    @property
    def clip_norm(self) -> float:
        """The largest norm of all gradients together; infinity: they are not clipped."""
        return math.inf

    def model(self, n_classes: int) -> nn.Module:
        """A new model."""
        raise NotImplementedError(f"{type(self).__name__} has no `model`")

    def optimizer(self, model: nn.Module) -> Optimizer:
        """A new optimizer of the model's parameters, with the learning rates that `rate` is a factor of."""
        raise NotImplementedError(f"{type(self).__name__} has no `optimizer`")

    def initialise(self, model: nn.Module, images: Tensor) -> None:
        """Set what follows from the data: called once, before the first step, with N training images [N, 32, 32, 3]."""

    def rate(self, at: Moment) -> float:
        """The factor of the learning rates: (1 + cos(pi epoch / epochs)) / 2, by epoch (Loshchilov and Hutter 2017)."""
        return (1 + math.cos(math.pi * at.epoch / at.epochs)) / 2

    def set_rates(self, optimizer: Optimizer, at: Moment) -> None:
        """Set the rates of a step; a pure function of the moment. The first group's `lr` is what is recorded."""
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self.rate(at)

    def training_inputs(self, images: Tensor, draw: Draw) -> Tensor:
        """Augmented and normalised: [B, 3, H, W] float32. Here every other image is mirrored."""
        flip = draw.uniforms(Stream.AUGMENTATION, 1)[:, 0] < 0.5
        return self.evaluation_inputs(mirrored(images, flip))

    def evaluation_inputs(self, images: Tensor) -> Tensor:
        """Normalised: [B, 3, 32, 32] float32."""
        return normalised(as_floats(images), MEAN, STD)

    def training_logits(self, model: nn.Module, inputs: Tensor, draw: Draw) -> Tensor:
        """[B, C] of augmented inputs."""
        logits: Tensor = model(inputs)
        return logits

    def evaluation_logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """[B, C] of inputs that are not augmented; nothing may be random."""
        logits: Tensor = model(inputs)
        return logits

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss over a batch, in float32 whatever the logits' type: cross-entropy of [B, C] and [B]."""
        return functional.cross_entropy(logits.to(torch.float32), labels)


AnyRecipe = Recipe[Any]
