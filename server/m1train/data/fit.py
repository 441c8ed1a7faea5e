"""How an image of any shape and kind becomes a square of RGB.

Squeezed to 32 pixels, an image without transparency gives the bits that 0.1.0 gave. A large image is not converted as a
whole: its colours are resized one after the other, which gives the bits of one resize in a quarter of the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from m1.columns import Need, rgb_of
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
How = Literal["squeeze", "crop", "pad"]
_STRIP_PIXELS = 1 << 20
_WHITE = (255, 255, 255)
# EXIF's Orientation: what turns the picture upright.
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Fit:
    """The square that an image becomes."""

    size: int = 32
    how: How = "squeeze"
    background: tuple[int, int, int] = _WHITE
    """Under what is transparent, and beside what is padded."""

    @classmethod
    def of(cls, need: Need) -> Fit:
        """What a need for images asks for; see m1.columns.image_need."""
        how = next(how for how in get_args(How) if how == need.options["fit"])
        return cls(int(need.options["size"]), how, rgb_of(need.options.get("background", "#ffffff")))

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """The size to which a whole image is scaled, before it is cut or padded."""
        if self.how == "squeeze":
            return self.size, self.size
        side = min(width, height) if self.how == "crop" else max(width, height)
        return max(1, round(width * self.size / side)), max(1, round(height * self.size / side))

    def draft(self, image: Image.Image) -> None:
        """Let a JPEG be decoded at an eighth of its size or more, where twice of what is needed is left of it.

        Not for what 0.1.0 read: the bits are others.
        """
        if (self.size, self.how) != (32, "squeeze"):
            width, height = self.scaled(*image.size)
            image.draft(None, (2 * width, 2 * height))

    def square(self, image: Image.Image) -> Image.Image:
        """The image as [size, size] RGB, as its pixels lie in the file."""
        if self.how == "squeeze":
            return _resized(image, (0, 0, *image.size), (self.size, self.size), self.background)
        if self.how == "crop":
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            return _resized(image, (left, top, left + side, top + side), (self.size, self.size), self.background)
        inside = _resized(image, (0, 0, *image.size), self.scaled(*image.size), self.background)
        canvas = Image.new("RGB", (self.size, self.size), self.background)
        canvas.paste(inside, ((self.size - inside.width) // 2, (self.size - inside.height) // 2))
        return canvas


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image turned as the camera was held."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def orientation_of(image: Image.Image, errors: tuple[type[BaseException], ...]) -> int:
    """EXIF's orientation of a loaded image; 1, upright, where there is none that can be read."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except errors:
        return 1
    return found if found in _TURNS else 1


def _resized(
    image: Image.Image, box: tuple[int, int, int, int], size: tuple[int, int], background: Sequence[int]
) -> Image.Image:
    left, top, right, bottom = box
    whole = box == (0, 0, *image.size)
    if (right - left) * (bottom - top) <= _STRIP_PIXELS:
        rgb = _rgb(image, background)
        if not whole:
            rgb = rgb.crop(box)
        return rgb if rgb.size == size else rgb.resize(size, Image.Resampling.BILINEAR)
    if whole and image.mode in ("RGB", "L") and "transparency" not in image.info:
        return image.resize(size, Image.Resampling.BILINEAR).convert("RGB")
    bands = (_band(image, box, band, background).resize(size, Image.Resampling.BILINEAR) for band in range(3))
    return Image.merge("RGB", list(bands))


def _band(image: Image.Image, box: tuple[int, int, int, int], band: int, background: Sequence[int]) -> Image.Image:
    """One of red, green and blue: a byte a pixel, where the whole in RGB takes four besides what was decoded."""
    left, top, right, bottom = box
    found = Image.new("L", (right - left, bottom - top))
    rows = max(1, _STRIP_PIXELS // (right - left))
    for start in range(top, bottom, rows):
        strip = image.crop((left, start, right, min(start + rows, bottom)))
        found.paste(_rgb(strip, background).getchannel(band), (0, start - top))
    return found


def _rgb(image: Image.Image, background: Sequence[int]) -> Image.Image:
    """The image's colours; what is transparent shows the background."""
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        alpha = layered.getchannel("A")
        if alpha.getextrema() != (255, 255):
            canvas = Image.new("RGB", image.size, (background[0], background[1], background[2]))
            canvas.paste(layered, mask=alpha)
            return canvas
    return image if image.mode == "RGB" else image.convert("RGB")
