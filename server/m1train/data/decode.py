"""One labelled image on its way into the cache: decoded within a bound of bytes, whatever is in its file."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import threading
import warnings
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from m1.cgroup import usable_cores
from m1.columns import Need
from m1.errors import M1Error, Reason
from m1.file_kinds import kind_of_bytes
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from m1train.data.fit import Fit, Pixels, orientation_of, upright

SIZE = 32
SQUEEZED_TO_32 = Fit()
# An image's file is read whole: far above every photograph, far below what a machine has.
MAX_IMAGE_BYTES = 64 << 20
# What may be decoded at a time; an image that takes more is decoded alone.
DECODED_BYTES = 256 << 20
# What may be read ahead: files that are not decoded yet, and pixels that are not written yet.
_AHEAD_BYTES = 64 << 20
_MOST_THREADS = 8
_CHUNK, _CHUNK_BYTES = 64, 4 << 20
# A PNG's colour profile and texts are unpacked whole; printers' profiles have a few MB, and Pillow's own bound is 1.
_MAX_PNG_TEXT_BYTES = 16 << 20
# Pillow's raster formats, the usual ones first; all decoded in this process. Not among them are those that start
# another program (EPS), that hand over to the system, to a plug-in (WMF, BUFR, GRIB, HDF5) or to any other format
# (IPTC), and films (MPEG).
_FORMATS = (
    *("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "QOI", "TGA", "ICO", "ICNS", "PCX"),
    *("BLP", "CUR", "DCX", "DDS", "DIB", "FITS", "FLI", "FTEX", "GBR", "IM", "IMT", "MCIDAS", "MSP", "PCD", "PIXAR"),
    *("PSD", "SGI", "SPIDER", "SUN", "XBM", "XPM", "XVTHUMB"),
)
# What Pillow's decoders are known to raise on damaged files.
_DECODE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    IndexError,
    KeyError,
    struct.error,
    zlib.error,
)
# What a pixel takes: Pillow holds some modes in one byte and the others in four; one more is a colour to be resized.
_PIXEL_BYTES = {"L": 1, "RGB": 4, "P": 2, "1": 2}
_OTHER_PIXEL_BYTES = 5
# How many times the pixels a format's decoder holds while it works, where that is more than once.
_DECODERS_COPIES = {"PNG": 1, "JPEG": 1, "BMP": 1, "PPM": 1}
_OTHER_COPIES = 3
# A progressive JPEG's coefficients: two bytes for each of three colours.
_PROGRESSIVE_BYTES = 6


@dataclass(frozen=True)
class Sample:
    """An image with its label: pixels are [size, size, 3] uint8 RGB."""

    split: str
    label: str
    name: str
    pixels: Pixels
    turned: bool = False
    """It lies in its file as the camera was held, and was turned upright."""


@dataclass(frozen=True)
class ImageFile:
    """An image as its file's bytes. `where` names the file for a person."""

    split: str
    label: str
    name: str
    where: str
    content: bytes


class Budget:
    """Bytes that threads may take at a time; one that asks for more than there is goes alone."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = self._free = size_bytes
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def take(self, size_bytes: int) -> Iterator[None]:
        """Wait until so many are free, and have them."""
        taken = min(size_bytes, self._size_bytes)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= taken)
            self._free -= taken
        try:
            yield
        finally:
            with self._changed:
                self._free += taken
                self._changed.notify_all()


def shown(where: object) -> str:
    """A path in words that can be sent and stored, whatever bytes it has."""
    return os.fsencode(str(where)).decode("utf-8", "backslashreplace")


def bad_data(where: object, problem: str, hint: str = "") -> M1Error:
    """The error that names a file or a folder of a dataset."""
    return M1Error(Reason.BAD_DATA, f'"{shown(where)}" {problem}', hint, field="data", value=shown(where))


def check_size(size_bytes: int, where: object) -> None:
    """Refuse a file that is too large for an image, before it is read."""
    if not 0 <= size_bytes <= MAX_IMAGE_BYTES:
        problem = f"has {size_bytes:,} bytes, and an image has at most {MAX_IMAGE_BYTES:,}"
        raise bad_data(where, problem, "store it smaller, or move it out of the dataset")


@cache
def _formats() -> tuple[str, ...]:
    PngImagePlugin.MAX_TEXT_CHUNK = _MAX_PNG_TEXT_BYTES
    # Pillow refuses from 179 million pixels, and warns from half of that; what is in between is decoded alone.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)  # AVIF and others can be left out of a Pillow


def decode(file: ImageFile, fit: Fit = SQUEEZED_TO_32, budget: Budget | None = None) -> Sample:
    """The image's pixels, upright, as RGB and fitted.

    Raises:
        M1Error: BAD_DATA naming the file.
    """
    if not file.content:
        raise bad_data(file.where, "is empty (0 bytes)", "put the whole picture there, or take the file away")
    try:
        with Image.open(io.BytesIO(file.content), formats=_formats()) as image:
            whole = image.size
            fit.draft(image)
            with budget.take(_decoded_bytes(image, whole)) if budget else contextlib.nullcontext():
                image.load()
                if image.mode.startswith(("I", "F")):
                    raise bad_data(file.where, f"has pixels of kind {image.mode}", "convert it to 8 bits a channel")
                orientation = orientation_of(image, _DECODE_ERRORS)
                square = upright(fit.square(image), orientation)
    except UnidentifiedImageError as error:
        kind = kind_of_bytes(file.content)
        if kind is not None and kind.gives != "one image":
            raise bad_data(file.where, f"is {kind.words}, not an image that can be read", kind.way_out) from error
        problem = "is not an image that can be read"
        raise bad_data(file.where, problem, "save it as PNG or JPEG, or move it out of the dataset") from error
    except Image.DecompressionBombError as error:
        problem = f"has more pixels than an image may have, {2 * (Image.MAX_IMAGE_PIXELS or 0):,}"
        raise bad_data(file.where, problem, "store it smaller, or move it out of the dataset") from error
    except _DECODE_ERRORS as error:
        if "MAX_TEXT_CHUNK" in str(error):
            problem = f"has a colour profile or a text of more than {_MAX_PNG_TEXT_BYTES:,} bytes"
            raise bad_data(file.where, problem, "save it without") from error
        raise bad_data(
            file.where, f"cannot be read as an image ({error})", "put a whole one there, or move it out of the dataset"
        ) from error
    return Sample(file.split, file.label, file.name, np.asarray(square, np.uint8), orientation != 1)


def read_image(path: Path, options: Mapping[str, str]) -> Pixels:
    """Read an image's file as a dataset's column was read: [size, size, 3] uint8 RGB.

    Raises:
        M1Error: BAD_DATA naming the file.
    """
    try:
        check_size(path.stat().st_size, path)
        content = path.read_bytes()
    except OSError as error:
        raise bad_data(path, f"cannot be read ({error.strerror})") from error
    return decode(ImageFile("", "", path.name, str(path), content), Fit.of(Need("image", options))).pixels


def _decoded_bytes(image: Image.Image, whole: tuple[int, int]) -> int:
    """About what decoding takes, by what the file's header says."""
    pixels = image.width * image.height * _PIXEL_BYTES.get(image.mode, _OTHER_PIXEL_BYTES)
    pixels *= _DECODERS_COPIES.get(image.format or "", _OTHER_COPIES)
    return pixels + (whole[0] * whole[1] * _PROGRESSIVE_BYTES if "progressive" in image.info else 0)


def decoded(files: Iterable[ImageFile], fit: Fit = SQUEEZED_TO_32) -> Iterator[Sample]:
    """The pixels of many files, in their order, decoded by a few threads (Pillow lets go of the interpreter).

    Some are read ahead, as many as the bounds of bytes allow.
    """
    threads = min(_MOST_THREADS, usable_cores())
    budget = Budget(DECODED_BYTES)
    ahead: deque[tuple[int, Future[list[Sample]]]] = deque()
    in_flight = 0

    def decode_all(chunk: list[ImageFile]) -> list[Sample]:
        return [decode(file, fit, budget) for file in chunk]

    with ThreadPoolExecutor(threads, "decode") as pool:
        try:
            for size_bytes, chunk in _chunks(files, 3 * fit.size**2):
                while ahead and (len(ahead) > 2 * threads or in_flight + size_bytes > _AHEAD_BYTES):
                    in_flight -= ahead[0][0]
                    yield from ahead.popleft()[1].result()
                ahead.append((size_bytes, pool.submit(decode_all, chunk)))
                in_flight += size_bytes
            while ahead:
                yield from ahead.popleft()[1].result()
        finally:
            for _, future in ahead:
                future.cancel()


def _chunks(files: Iterable[ImageFile], pixel_bytes: int) -> Iterator[tuple[int, list[ImageFile]]]:
    """Files that are decoded one after the other, with what they and their pixels take in memory."""
    chunk: list[ImageFile] = []
    size_bytes = 0
    for file in files:
        chunk.append(file)
        size_bytes += len(file.content) + pixel_bytes
        if len(chunk) == _CHUNK or size_bytes >= _CHUNK_BYTES:
            yield size_bytes, chunk
            chunk, size_bytes = [], 0
    if chunk:
        yield size_bytes, chunk
