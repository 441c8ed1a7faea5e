"""The `cifar` recipe: a VGG-like network with BatchNorm, 1,283,914 trainable parameters at ten classes.

Three blocks of (3x3 convolution, BatchNorm, ReLU) twice, with 64, 128 and 256 channels, each followed by 2x2 max
pooling and Dropout2d of 0.1, 0.2 and 0.3; then global average pooling, Linear 256 to 512, ReLU, Dropout 0.5, Linear.
Cross-entropy, AdamW, cosine annealing over the epochs (Loshchilov and Hutter 2017, without restarts).
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW, Optimizer

from m1train.randomness import Draw
from m1train.recipe import MEAN, STD, Classifier
from m1train.recipes.cifar import CifarConfig
from m1train.task.classifier.augment import AugmentationSpread, as_floats, flipped_and_rotated, jittered, normalised
from m1train.task.classifier.settings import SMALL_IMAGES

_BLOCKS = ((64, 0.1), (128, 0.2), (256, 0.3))
_HIDDEN, _HEAD_DROPOUT = 512, 0.5


def _block(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2, 2),
    )


class CifarNetwork(nn.Module):
    """[B, 3, 32, 32] to [B, n_classes] logits. Dropout is a product with masks that the Draw gives."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        widths = [3] + [width for width, _ in _BLOCKS]
        self.blocks = nn.ModuleList(_block(a, b) for a, b in itertools.pairwise(widths))
        self.hidden = nn.Linear(widths[-1], _HIDDEN)
        self.logits = nn.Linear(_HIDDEN, n_classes)

    def forward(self, images: Tensor, draw: Draw | None = None) -> Tensor:
        """The logits; with `draw=None` nothing is dropped."""
        x = images
        for layer, (block, (_, p)) in enumerate(zip(self.blocks, _BLOCKS, strict=True)):
            x = block(x)
            if draw is not None:
                x = _dropped(x, draw, layer, p)
        x = functional.relu(self.hidden(x.mean(dim=(2, 3))), inplace=True)
        if draw is not None:
            x = _dropped(x, draw, len(_BLOCKS), _HEAD_DROPOUT)
        logits: Tensor = self.logits(x)
        return logits


class Cifar(Classifier[CifarConfig]):
    """The recipe, as m1train.recipe declares it."""

    needs = SMALL_IMAGES

    def __init__(self, config: CifarConfig) -> None:
        super().__init__(config)
        self._spread = AugmentationSpread(
            config.flip, config.rotation_degrees, config.brightness, config.contrast, config.saturation
        )

    @property
    def clip_norm(self) -> float:
        """The setting; 0 stands for none."""
        return self.config.clip_norm or math.inf

    def model(self, n_classes: int) -> nn.Module:
        """A new network with torch's default initialisation."""
        return CifarNetwork(n_classes)

    def optimizer(self, model: nn.Module) -> Optimizer:
        """AdamW over all parameters."""
        return AdamW(model.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay)

    def training_inputs(self, images: Tensor, draw: Draw) -> Tensor:
        """Flip, rotation, colour jitter, normalisation: [B, 32, 32, 3] uint8 to [B, 3, 32, 32] float32."""
        chosen = self._spread.draw(draw)
        turned = as_floats(flipped_and_rotated(images, chosen.flip, chosen.degrees))
        return normalised(jittered(turned, chosen.factors, chosen.order), MEAN, STD)

    def training_logits(self, model: nn.Module, inputs: Tensor, draw: Draw) -> Tensor:
        """With the draw's dropout."""
        logits: Tensor = model(inputs, draw)
        return logits


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _dropped(x: Tensor, draw: Draw, layer: int, p: float) -> Tensor:
    """[B, features] or [B, features, H, W] times the draw's mask."""
    mask = draw.dropout(layer, x.shape[1], p, like=x)
    return x * mask.view(*mask.shape, *[1] * (x.ndim - 2))
