"""The files of a dataset's columns: written once, from the source's order into that of the dataset; mapped after.

<split>_<name>s.npy        a column of fixed shape: [N, ...]
train_texts.npy            a text column: the UTF-8 bytes of all documents, [bytes] uint8, and
train_text_offsets.npy     where each begins and the last one ends, [N + 1] int64
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from m1.columns import Column
from m1.errors import M1Error, Reason
from numpy.typing import NDArray

SPLITS = ("train", "test", "val")
# How much is copied at a time.
COPY_BYTES = 8 << 20
_DAMAGED = "delete this folder of the cache"


class Digest(Protocol):
    """What hashlib makes."""

    def update(self, data: Any, /) -> None:
        """Take more bytes in."""
        ...

    def hexdigest(self) -> str:
        """Give the hash of all bytes so far."""
        ...


@dataclass(frozen=True)
class Stored:
    """What was read of a source, its arrays already in their files."""

    columns: Sequence[Column]
    rows: Mapping[str, int]
    sha256: str
    """Of all columns of all splits: the same for a folder and a tar of it."""
    notes: Sequence[str] = field(default_factory=list)
    warnings: Sequence[str] = field(default_factory=list)


def file_of(directory: Path, split: str, name: str) -> Path:
    """The file of one array of a split."""
    return directory / (f"{split}_{name}.npy" if name.endswith("s") else f"{split}_{name}s.npy")


def declaration(columns: Iterable[Column]) -> bytes:
    """The columns as bytes, for a hash."""
    return json.dumps([asdict(column) for column in columns], sort_keys=True).encode()


def write_array(path: Path, dtype: str, shape: Sequence[int], parts: Iterable[bytes], digest: Digest) -> None:
    """Write an array's file in parts of its bytes, and hash them; no more than a part is in memory."""
    with open(path, "xb") as file:
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": tuple(shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(part)
            digest.update(part)


def rows_of(raw: BinaryIO, order: Iterable[int], row_bytes: int) -> Iterable[bytes]:
    """Rows of a file of rows, in an order, some at a time."""
    raw.flush()
    some, size = [], 0
    for row in order:
        some.append(os.pread(raw.fileno(), row_bytes, row * row_bytes))
        size += row_bytes
        if size >= COPY_BYTES:
            yield b"".join(some)
            some, size = [], 0
    yield b"".join(some)


def open_columns(directory: Path, columns: Sequence[Column], split: str, n_rows: int) -> dict[str, NDArray[Any]]:
    """Map the arrays of a split.

    Raises:
        M1Error: BAD_DATA, when they are not what they were written as.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for column in columns:
        values = _mapped(directory, split, column.name)
        shape: tuple[int, ...] = (n_rows, *column.shape)
        if column.kind == "text":
            offsets = arrays[f"{column.name}_offsets"] = np.array(_mapped(directory, split, f"{column.name}_offsets"))
            if offsets.shape != (n_rows + 1,) or offsets.dtype != np.int64 or (np.diff(offsets, prepend=0) < 0).any():
                raise _damaged(directory, "offsets")
            shape = (int(offsets[-1]),)
        if values.shape != shape or values.dtype != np.dtype(column.dtype):
            raise _damaged(directory, "shapes")
        if column.kind == "label":
            values = np.array(values)  # a few bytes a row, and looked at as a whole
            if len(values) and not (values.min() >= 0 and values.max() < len(column.classes)):
                raise _damaged(directory, "labels")
        arrays[column.name] = values
    return arrays


def _mapped(directory: Path, split: str, name: str) -> NDArray[Any]:
    path = file_of(directory, split, name)
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise _damaged(directory, error) from error
    return array


def _damaged(directory: Path, what: object) -> M1Error:
    message = f'"{directory}" is damaged ({what})'
    return M1Error(Reason.BAD_DATA, message, _DAMAGED, field="data", value=str(directory))
