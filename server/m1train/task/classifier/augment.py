"""Augmentation by batch: what torchvision's transforms do to one image, done to B of them at once.

Each function takes the parameters of every sample; `AugmentationSpread.draw` makes them of a Draw. Geometry and
blending follow torchvision.transforms.functional (0.29) on float tensors, and the tests hold them against it. Colours
are handled in planes, [B, 3, H, W] contiguous: with the three channels innermost the same arithmetic takes several
times as long.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m1train.randomness import Draw, Stream

# ITU-R 601-2 luma, as torchvision's rgb_to_grayscale has it.
_LUMA = (0.2989, 0.587, 0.114)
# The six orders of brightness (0), contrast (1) and saturation (2).
_ORDERS = np.array([(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])


@dataclass(frozen=True)
class Augmentation:
    """The parameters of a batch of B images."""

    flip: NDArray[np.bool_]
    """[B]: mirrored left to right."""
    degrees: NDArray[np.float32]
    """[B]: turned counter-clockwise."""
    factors: NDArray[np.float32]
    """[B, 3]: of brightness, contrast and saturation; 1 changes nothing."""
    order: NDArray[np.int64]
    """[B, 3]: which of the three comes first, second and third."""


@dataclass(frozen=True)
class AugmentationSpread:
    """How far the parameters may go."""

    flip: float
    rotation_degrees: float
    brightness: float
    contrast: float
    saturation: float

    def draw(self, draw: Draw) -> Augmentation:
        """The batch's parameters: uniform in ±rotation_degrees and in [max(0, 1-x), 1+x] of each factor."""
        u = draw.uniforms(Stream.AUGMENTATION, 6)
        spread = np.array((self.brightness, self.contrast, self.saturation), np.float32)
        low = np.maximum(np.float32(0), 1 - spread)
        return Augmentation(
            flip=u[:, 0] < self.flip,
            degrees=(2 * u[:, 1] - 1) * np.float32(self.rotation_degrees),
            factors=low + u[:, 2:5] * (1 + spread - low),
            order=_ORDERS[np.minimum((u[:, 5] * 6).astype(np.int64), 5)],
        )


def flipped_and_rotated(images: Tensor, flip: NDArray[np.bool_], degrees: NDArray[np.float32]) -> Tensor:
    """Mirror, then turn about the centre: [B, H, W, 3]; the nearest pixel, black outside, as RandomRotation does."""
    batch, height, width, channels = images.shape
    angle = np.radians(degrees.astype(np.float64))
    cos = torch.from_numpy(np.cos(angle).astype(np.float32))[:, None, None]
    sin = torch.from_numpy(np.sin(angle).astype(np.float32))[:, None, None]
    x = torch.arange(width, dtype=torch.float32)[None, None, :] - (width - 1) / 2
    y = torch.arange(height, dtype=torch.float32)[None, :, None] - (height - 1) / 2
    # Where each pixel of the result comes from: the inverse rotation, y pointing down.
    from_x = (cos * x - sin * y).add_((width - 1) / 2).round_()
    from_y = (sin * x + cos * y).add_((height - 1) / 2).round_()
    outside = (from_x < 0) | (from_x >= width) | (from_y < 0) | (from_y >= height)
    # Mirrored: width - 1 - from_x.
    sign = torch.from_numpy(np.where(flip, -1, 1).astype(np.float32))[:, None, None]
    shift = torch.from_numpy(np.where(flip, width - 1, 0).astype(np.int32))[:, None, None]
    first = (torch.arange(batch, dtype=torch.int32) * (height * width))[:, None, None] + shift
    source = from_y.mul_(width).add_(from_x.mul_(sign)).to(torch.int32).add_(first)
    # One black pixel stands behind the last image: where the outside comes from.
    source.masked_fill_(outside, batch * height * width)
    pixels = torch.cat((images.reshape(-1, channels), images.new_zeros(1, channels)))
    return pixels.index_select(0, source.flatten()).view(batch, height, width, channels)


def mirrored(images: Tensor, flip: NDArray[np.bool_]) -> Tensor:
    """Left to right, where [B] `flip` says so: [B, H, W, 3]."""
    return torch.where(torch.from_numpy(flip)[:, None, None, None], images.flip(2), images)


def alternately_flipped(draw: Draw) -> NDArray[np.bool_]:
    """[B]: which samples are mirrored in this epoch: a random half in the first one, then each every other time.

    So two epochs in a row show an image and its mirror image (Jordan: "94% on CIFAR-10 in 3.29 seconds", 2024).
    """
    first = replace(draw, epoch=0).uniforms(Stream.FLIP, 1)[:, 0] < 0.5
    return first ^ (draw.epoch % 2 == 1)


def drawn_shifts(draw: Draw, padding: int) -> NDArray[np.int64]:
    """[B, 2]: where a crop of an image padded by so many pixels begins: row and column of 0 to 2 padding."""
    n = 2 * padding + 1
    shifts: NDArray[np.int64] = np.minimum((draw.uniforms(Stream.SHIFT, 2) * n).astype(np.int64), n - 1)
    return shifts


def cropped(images: Tensor, padding: int, begin: NDArray[np.int64]) -> Tensor:
    """Pad by reflection, then cut out the original size from a row and a column on: [B, H, W, 3], `begin` [B, 2]."""
    _, height, width, _ = images.shape
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(images.numpy(), around, mode="reflect")
    # A view of every crop of every image, of which one each is copied.
    crops = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    chosen = crops[np.arange(len(begin)), begin[:, 0], begin[:, 1]]
    return torch.from_numpy(np.ascontiguousarray(chosen.transpose(0, 2, 3, 1)))


def drawn_centres(draw: Draw, height: int, width: int) -> NDArray[np.int64]:
    """[B, 2]: a row and a column of the image, all equally likely."""
    u = draw.uniforms(Stream.CUTOUT, 2)
    size = np.array((height, width))
    centres: NDArray[np.int64] = np.minimum((u * size).astype(np.int64), size - 1)
    return centres


def cut_out(images: Tensor, size: int, centre: NDArray[np.int64]) -> Tensor:
    """A square of `size` pixels about `centre` [B, 2], as far as it lies inside, is 0: [B, 3, H, W].

    DeVries and Taylor: "Improved regularization of convolutional neural networks with cutout", 2017.
    """
    _, _, height, width = images.shape
    first = centre - size // 2
    inside = []
    for axis, length in ((0, height), (1, width)):
        at = np.arange(length)[None, :]
        inside.append((at >= first[:, axis, None]) & (at < first[:, axis, None] + size))
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    return images.masked_fill(torch.from_numpy(hole)[:, None], 0)


def as_floats(images: Tensor) -> Tensor:
    """From [B, H, W, 3] uint8 to planes: [B, 3, H, W] contiguous, float32 in [0, 1]."""
    # The bytes change places first: a quarter of the memory traffic.
    return images.permute(0, 3, 1, 2).contiguous().to(torch.float32).mul_(1 / 255)


def jittered(images: Tensor, factors: NDArray[np.float32], order: NDArray[np.int64]) -> Tensor:
    """Brightness, contrast and saturation of float images in [0, 1], each sample in its own order: [B, 3, H, W].

    All three blend the image with another one: black, its mean grey, its grey (torchvision's `_blend`).
    """
    rows = np.arange(len(order))
    for turn in order.T:
        ratio = torch.from_numpy(factors[rows, turn])[:, None, None, None]
        grey = _LUMA[0] * images[:, :1] + _LUMA[1] * images[:, 1:2] + _LUMA[2] * images[:, 2:]
        mean = grey.mean(dim=(2, 3), keepdim=True)
        # How much of the grey and of its mean the other image is, times 1 - ratio.
        rest = 1 - ratio
        other = (grey * (rest * _column(turn == 2))).add_(mean * (rest * _column(turn == 1)))
        images = torch.addcmul(other, images, ratio).clamp_(0, 1)
    return images


def normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """From [B, 3, H, W] in [0, 1] to zero mean and unit deviation of each channel."""
    scale = (1 / torch.tensor(std, dtype=torch.float32))[:, None, None]
    return torch.addcmul(-torch.tensor(mean, dtype=torch.float32)[:, None, None] * scale, images, scale)


def _column(chosen: NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(chosen.astype(np.float32))[:, None, None, None]
