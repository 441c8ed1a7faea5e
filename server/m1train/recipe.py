"""What a recipe is: a model, its loss, its optimizer, its schedule, and how images become inputs.

The engine calls it; a recipe knows nothing of daemons, journals, checkpoints, ranks or the clock. All that is random
comes in as a Draw, so that the same batch is the same batch wherever and however often it is trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from m1train.config import TrainingConfig

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from m1train.randomness import Draw


class Recipe(Protocol):
    """A classifier of images: [B, 32, 32, 3] uint8 in, [B, C] logits out."""

    @property
    def config(self) -> TrainingConfig:
        """The settings that the engine needs."""
        ...

    @property
    def clip_norm(self) -> float:
        """The largest norm of all gradients together; infinity when they are not clipped."""
        ...

    def model(self, n_classes: int) -> nn.Module:
        """A new model, called as `model(inputs, draw)`; with `draw=None` nothing is random (evaluation)."""
        ...

    def optimizer(self, model: nn.Module) -> Optimizer:
        """A new optimizer of the model's parameters. The engine sets `lr` before each step."""
        ...

    def lr(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0: a pure function."""
        ...

    def training_inputs(self, images: Tensor, draw: Draw) -> Tensor:
        """Augmented and normalised: [B, 3, 32, 32] float32."""
        ...

    def evaluation_inputs(self, images: Tensor) -> Tensor:
        """Normalised: [B, 3, 32, 32] float32."""
        ...

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss over a batch, from [B, C] logits and [B] labels."""
        ...
