"""One labelled image on its way into the cache, and what every source of them has in common."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from m1.errors import M1Error, Reason
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

SIZE = 32
SPLITS = ("train", "test")
# An image's file is read whole: far above every photograph, far below what a machine has.
MAX_IMAGE_BYTES = 64 << 20
# What file managers leave behind; names that begin with a dot are passed over as well.
_LITTER = ("thumbs.db", "desktop.ini", "__macosx")
_CHUNK = 64
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
    Image.DecompressionBombError,
)

Pixels = NDArray[np.uint8]
Phase = Literal["download", "read"]
# Called with the phase, what is done and what there is in all (0 when that is not known): bytes of a download, images
# of reading. May raise, to interrupt.
Progress = Callable[[Phase, int, int], None]


@dataclass(frozen=True)
class Sample:
    """An image with its label: pixels are [32, 32, 3] uint8 RGB."""

    split: str
    label: str
    name: str
    pixels: Pixels


@dataclass(frozen=True)
class ImageFile:
    """An image as its file's bytes. `where` names the file for a person."""

    split: str
    label: str
    name: str
    where: str
    content: bytes


class Source(Protocol):
    """What a data set can be read from."""

    @property
    def description(self) -> str:
        """Where it comes from, in words or as a path."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes when the source does; cheap."""
        ...

    def samples(self, progress: Progress) -> Iterator[Sample]:
        """Every image, in any order.

        Raises:
            M1Error: BAD_DATA naming the file, DOWNLOAD_FAILED.
        """
        ...


def bad_data(where: object, problem: str, hint: str = "") -> M1Error:
    """The error that names a file or a folder of a data set."""
    return M1Error(Reason.BAD_DATA, f'"{where}" {problem}', hint, field="data", value=str(where))


def check_size(size_bytes: int, where: object) -> None:
    """Refuse a file that is too large for an image, before it is read."""
    if not 0 <= size_bytes <= MAX_IMAGE_BYTES:
        problem = f"has {size_bytes:,} bytes, and an image has at most {MAX_IMAGE_BYTES:,}"
        raise bad_data(where, problem, "remove it or store it smaller")


def is_litter(part: str) -> bool:
    """Whether a file's or folder's name is to be passed over."""
    return part.startswith(".") or part.lower() in _LITTER


def check_split(split: str, where: object) -> None:
    """Refuse a split that is neither train nor test."""
    if split not in SPLITS:
        raise bad_data(
            where,
            f'has a split "{split}", and only train and test are known',
            "put the images under train/<class>/ and test/<class>/; validation images are held out of train",
        )


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)  # AVIF and others can be left out of a Pillow


def decode(file: ImageFile) -> Sample:
    """The image's pixels, as RGB and resized to 32 x 32 where they are not.

    Raises:
        M1Error: BAD_DATA naming the file.
    """
    if not file.content:
        raise bad_data(file.where, "is empty (0 bytes)", "remove the file or replace it by a whole one")
    try:
        with Image.open(io.BytesIO(file.content), formats=_formats()) as image:
            image.load()
            if image.mode.startswith(("I", "F")):
                raise bad_data(file.where, f"has pixels of kind {image.mode}", "convert it to 8 bits a channel")
            rgb = image.convert("RGB")
    except UnidentifiedImageError as error:
        raise bad_data(
            file.where, "is not an image that can be read", "remove the file or replace it by a PNG"
        ) from error
    except _DECODE_ERRORS as error:
        raise bad_data(file.where, f"cannot be read as an image ({error})", "replace it by a whole one") from error
    if rgb.size != (SIZE, SIZE):
        rgb = rgb.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return Sample(file.split, file.label, file.name, np.asarray(rgb, np.uint8))


def decoded(files: Iterable[ImageFile]) -> Iterator[Sample]:
    """The pixels of many files, decoded by a few threads (Pillow lets go of the interpreter), some chunks ahead."""
    files = iter(files)
    threads = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, "decode") as pool:
        ahead: deque[Future[list[Sample]]] = deque()
        try:
            while chunk := list(islice(files, _CHUNK)):
                ahead.append(pool.submit(lambda files: [decode(file) for file in files], chunk))
                if len(ahead) > 2 * threads:
                    yield from ahead.popleft().result()
            while ahead:
                yield from ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def read_image(path: Path, options: Mapping[str, str]) -> Pixels:
    """The pixels of an image's file, read as a data set's column was.

    Raises:
        M1Error: BAD_DATA naming the file.
    """
    del options
    try:
        content = path.read_bytes()
    except OSError as error:
        raise bad_data(path, f"cannot be read ({error.strerror})") from error
    return decode(ImageFile("", "", path.name, str(path), content)).pixels
