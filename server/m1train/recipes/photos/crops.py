"""Random resized crops, by batch: a part of each image, of any place, size and shape, becomes the whole one.

Szegedy and others: "Going deeper with convolutions", 2015; the areas and shapes are drawn as torchvision's
RandomResizedCrop draws them, but what would reach over the border is as wide or high as the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from m1train.randomness import Draw, Stream

_WIDEST = 4 / 3


@dataclass(frozen=True)
class Crops:
    """Where the parts of B images lie: [B] each, as fractions of the whole width or height."""

    left: NDArray[np.float32]
    top: NDArray[np.float32]
    width: NDArray[np.float32]
    height: NDArray[np.float32]


def drawn_crops(draw: Draw, smallest: float) -> Crops:
    """Draw the area from [smallest, 1], the logarithm of width to height from ±log(4/3), then the place."""
    u = draw.uniforms(Stream.CROP, 4)
    area = smallest + u[:, 0] * np.float32(1 - smallest)
    ratio = np.exp((2 * u[:, 1] - 1) * np.float32(math.log(_WIDEST) if smallest < 1 else 0))
    width, height = np.minimum(np.sqrt(area * ratio), 1), np.minimum(np.sqrt(area / ratio), 1)
    return Crops(u[:, 2] * (1 - width), u[:, 3] * (1 - height), width, height)


def resized_crops(images: Tensor, crops: Crops, flip: NDArray[np.bool_]) -> Tensor:
    """Scale each part up to the whole image's size, bilinearly, and mirror it where [B] `flip` says so.

    From float planes [B, C, H, W] to the same.
    """
    batch, _, height, width = images.shape
    x, y = _places(crops.left, crops.width, width), _places(crops.top, crops.height, height)
    x = torch.where(torch.from_numpy(flip)[:, None], x.flip(1), x)
    grid = torch.stack((x[:, None, :].expand(batch, height, width), y[:, :, None].expand(batch, height, width)), -1)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _places(begin: NDArray[np.float32], length: NDArray[np.float32], pixels: int) -> Tensor:
    """Where the centre of each pixel of the result comes from: [B, pixels], from -1 to 1 across the whole image."""
    centres = (torch.arange(pixels, dtype=torch.float32) + 0.5) / pixels
    places: Tensor = 2 * (torch.from_numpy(begin)[:, None] + torch.from_numpy(length)[:, None] * centres) - 1
    return places
