"""Pictures with words below them, on one sheet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_SIDE, _CAPTION, _GAP, _COLUMNS = 96, 14, 6, 6
_MOST_LETTERS = 16


def contact_sheet(pictures: Sequence[NDArray[np.uint8]], words: Sequence[str]) -> NDArray[np.uint8]:
    """Lay N pictures [H, W, 3] out in rows of six, each drawn to a side of 96 pixels: [H', W', 3] uint8."""
    from PIL import Image, ImageDraw

    rows = -(-len(pictures) // _COLUMNS)
    width, height = _SIDE + _GAP, _SIDE + _CAPTION + _GAP
    sheet = Image.new("RGB", (_COLUMNS * width + _GAP, rows * height + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (pixels, word) in enumerate(zip(pictures, words, strict=True)):
        x, y = _GAP + i % _COLUMNS * width, _GAP + i // _COLUMNS * height
        picture = Image.fromarray(np.ascontiguousarray(pixels)).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
        sheet.paste(picture, (x, y))
        shown = word if len(word) <= _MOST_LETTERS else word[: _MOST_LETTERS - 1] + "~"
        # Pillow's own font has Latin letters alone.
        draw.text((x, y + _SIDE + 1), shown.encode("latin-1", "replace").decode("latin-1"), fill="black")
    return np.asarray(sheet, np.uint8)
