"""The `cifar-fast` recipe: much of what the speed records for CIFAR-10 do, fitted to a processor's cores.

From KellerJordan/cifar10-airbench (Jordan: "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024) and
tysam-code/hlb-CIFAR10: a frozen whitening convolution of 2 x 2 patches, computed once from training images and never
differentiated; three groups of two 3 x 3 convolutions that begin as the identity; BatchNorm whose scale is frozen;
Muon on the filters and Nesterov SGD with high rates on the biases and the head; label smoothing; a linear schedule;
alternating flips; shifts over a reflected border; six views at the end. Added for a processor, where time follows the
number of pixels: the images begin small and grow from epoch to epoch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from m1train.randomness import Draw
from m1train.recipe import MEAN, STD, Classifier, Moment
from m1train.recipes.cifar_fast import CifarFastConfig
from m1train.recipes.cifar_fast.muon import Muon
from m1train.recipes.cifar_fast.plans import settled
from m1train.task.classifier.augment import alternately_flipped, as_floats, cropped, drawn_shifts, mirrored, normalised
from m1train.task.classifier.settings import SMALL_IMAGES

_SIDE = 32
# airbench94_muon's constants, for the sum of a batch's losses; here the loss is a mean, so they are times the batch.
_BIAS_LR, _HEAD_LR, _MUON_MOMENTUM, _MOMENTUM, _DECAY = 0.053, 0.67, 0.6, 0.85, 2e-6
_BATCHNORM_MOMENTUM, _BATCHNORM_EPS, _WHITENING_EPS = 0.4, 1e-12, 5e-4


class _Norm(nn.BatchNorm2d):
    """With a scale that stays 1."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=_BATCHNORM_EPS, momentum=_BATCHNORM_MOMENTUM)
        self.weight.requires_grad_(False)


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """3 x 3 without bias, whose first filters pass their input on as it is."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight.data[:inputs])
    return layer


class _Group(nn.Module):
    """Two convolutions; after the first one the image is half as wide and high."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.first_norm = _convolution(inputs, outputs), _Norm(outputs)
        self.second, self.second_norm = _convolution(outputs, outputs), _Norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.gelu(self.first_norm(functional.max_pool2d(self.first(x), 2)))
        return functional.gelu(self.second_norm(self.second(x)))


class CifarFastNetwork(nn.Module):
    """[B, 3, S, S] of any side S from 16 on to [B, n_classes] logits."""

    def __init__(self, n_classes: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("whitening", torch.zeros(24, 3, 2, 2))
        self.groups = nn.Sequential(*(_Group(a, b) for a, b in itertools.pairwise((24, *widths))))
        self.head = nn.Linear(widths[-1], n_classes, bias=False)
        self.head.weight.data /= self.head.weight.data.std()

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        with torch.no_grad():  # it is frozen: nothing of it is kept for a backward pass
            x = functional.gelu(functional.conv2d(x, self.get_buffer("whitening")))
        logits: Tensor = self.head(self.groups(x).amax((2, 3)))
        return logits / self.head.in_features


def whitening_filters(images: Tensor) -> Tensor:
    """12 filters whose answers to the 2 x 2 patches of these images are uncorrelated, and their negatives.

    From normalised images [N, 3, H, W] to [24, 3, 2, 2]: the eigenvectors of the patches' covariance, divided
    by the roots of its eigenvalues.
    """
    patches = functional.unfold(images, 2).transpose(1, 2).reshape(-1, 12)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / torch.sqrt(values + _WHITENING_EPS)).T.reshape(12, 3, 2, 2)
    return torch.cat((filters, -filters))


def _resized(images: Tensor, size: int) -> Tensor:
    if size == images.shape[-1]:
        return images
    return functional.interpolate(images, (size, size), mode="bilinear", antialias=True)


class CifarFast(Classifier[CifarFastConfig]):
    """The recipe, as m1train.recipe declares it."""

    needs = SMALL_IMAGES

    def __init__(self, config: CifarFastConfig) -> None:
        self._plan = settled(config)
        super().__init__(replace(config, epochs=self._plan.length, lr=self._plan.lr))

    def model(self, n_classes: int) -> nn.Module:
        """A new network; `initialise` sets its whitening."""
        return CifarFastNetwork(n_classes, self._plan.widths)

    def initialise(self, model: nn.Module, images: Tensor) -> None:
        """Whiten the patches of these images."""
        model.get_buffer("whitening").copy_(whitening_filters(self.evaluation_inputs(images)))

    def optimizer(self, model: nn.Module) -> Optimizer:
        """Muon on the filters; Nesterov SGD on the biases and the head."""
        batch, decay = self.config.batch_size, _DECAY
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        filters = [p for _, p in named if p.ndim == 4]
        biases = [p for _, p in named if p.ndim == 1]
        head = [p for _, p in named if p.ndim == 2]
        return Muon(
            [
                {"params": filters, "lr": self.config.lr, "momentum": _MUON_MOMENTUM, "orthogonal": True},
                {"params": biases, "lr": _BIAS_LR * batch, "momentum": _MOMENTUM, "weight_decay": decay / _BIAS_LR},
                {"params": head, "lr": _HEAD_LR * batch, "momentum": _MOMENTUM, "weight_decay": decay / _HEAD_LR},
            ]
        )

    def rate(self, at: Moment) -> float:
        """From 1 to 0 along a line, step by step."""
        return 1 - at.fraction

    def training_inputs(self, images: Tensor, draw: Draw) -> Tensor:
        """Moved, flipped every other epoch, normalised, and as large as the epoch has it."""
        moved = cropped(images, self.config.shift, drawn_shifts(draw, self.config.shift))
        return _resized(self.evaluation_inputs(mirrored(moved, alternately_flipped(draw))), self._plan.side(draw.epoch))

    def evaluation_inputs(self, images: Tensor) -> Tensor:
        """Normalised: [B, 3, 32, 32]."""
        return normalised(as_floats(images), MEAN, STD)

    def evaluation_logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """The weighted mean over the views."""
        size, views = self._plan.sizes[-1], list(itertools.islice(_views(inputs), self.config.views))
        total = math.fsum(weight for weight, _ in views)
        logits = [model(_resized(view, size)).float() * (weight / total) for weight, view in views]
        return torch.stack(logits).sum(0)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy with smoothed labels, in float32."""
        return functional.cross_entropy(logits.float(), labels, label_smoothing=self.config.label_smoothing)


def _views(images: Tensor) -> Iterator[tuple[float, Tensor]]:
    """As they are, and moved by a pixel along both diagonals, each with its mirror image; and their weights."""
    padded = functional.pad(images, (1, 1, 1, 1), mode="reflect")
    side = images.shape[-1]
    for weight, view in ((2.0, images), (1.0, padded[..., :side, :side]), (1.0, padded[..., 2:, 2:])):
        yield weight, view
        yield weight, view.flip(-1)
