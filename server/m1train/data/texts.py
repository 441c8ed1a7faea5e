"""Texts into the column "text": the bytes of all documents one after the other, and where each begins.

Where a source has no splits, the last tenth of its bytes is "test", cut between two characters; a document that the cut
goes through is in both.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from m1.columns import Column

from m1train.data.columns import COPY_BYTES, SPLITS, Digest, Stored, declaration, file_of, write_array
from m1train.data.decode import bad_data
from m1train.data.progress import Progress
from m1train.data.sources.text import Document, Texts

_TEXT = Column("text", "text", "uint8", options={"encoding": "utf-8"})
_TEST_PART = 10


def store_texts(directory: Path, source: Texts, progress: Progress) -> Stored:
    """Read a source's texts, and write their column into a directory.

    Raises:
        M1Error: BAD_DATA naming the file.
    """
    groups = {split: [d for d in source.documents if d.split == split] for split in ("", *SPLITS)}
    digest = hashlib.sha256(declaration([_TEXT]))
    rows: dict[str, int] = {}
    done = 0

    def read(documents: Sequence[Document], raw: BinaryIO) -> list[int]:
        nonlocal done
        ends = []
        for document in documents:
            raw.writelines(source.parts(document))
            ends.append(raw.tell())
            done += 1
            progress("read", done, len(source.documents))
        return ends

    for split, documents in groups.items():
        if not documents:
            continue
        with open(directory / "text.raw", "w+b") as raw:
            ends = read(documents, raw)
            raw.flush()
            size = ends[-1]
            if not size:
                raise bad_data(
                    source.description, f'has no text in "{split or "train"}"', "add some, or remove the folder"
                )
            parts = {split: (0, size)} if split else _tenths(raw, size)
            for name, (start, end) in parts.items():
                rows[name] = _store(directory, name, raw, _offsets(ends, start, end), start, digest)
        (directory / "text.raw").unlink()
    return Stored((_TEXT,), rows, digest.hexdigest(), source.notes)


def _tenths(raw: BinaryIO, size: int) -> dict[str, tuple[int, int]]:
    """Where train and test begin and end; only train where there is too little for a test."""
    cut = size - size // _TEST_PART
    while 0 < cut < size and os.pread(raw.fileno(), 1, cut)[0] & 0xC0 == 0x80:  # inside a character
        cut -= 1
    return {"train": (0, cut), "test": (cut, size)} if 0 < cut < size else {"train": (0, size)}


def _offsets(ends: Sequence[int], start: int, end: int) -> list[int]:
    """Where the documents begin and end between two places, counted from the first one."""
    return [0, *(at - start for at in ends if start < at < end), end - start]


def _store(directory: Path, split: str, raw: BinaryIO, offsets: list[int], start: int, digest: Digest) -> int:
    size = offsets[-1]
    write_array(file_of(directory, split, "text"), _TEXT.dtype, (size,), _copied(raw, start, size), digest)
    array = np.array(offsets, np.int64)
    write_array(file_of(directory, split, "text_offsets"), "int64", array.shape, [array.tobytes()], digest)
    return len(offsets) - 1


def _copied(raw: BinaryIO, start: int, size: int) -> Iterator[bytes]:
    while size:
        part = os.pread(raw.fileno(), min(size, COPY_BYTES), start)
        start, size = start + len(part), size - len(part)
        yield part
