"""Labelled images into the columns "image" and "label", in the order of (class, name)."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from m1.columns import IMAGES_OF_32, Column, Need, normalised
from m1.units import counted

from m1train.data.columns import SPLITS, Digest, Stored, declaration, file_of, rows_of, write_array
from m1train.data.decode import Sample, bad_data
from m1train.data.fit import Fit
from m1train.data.progress import Progress
from m1train.data.sources.layout import LAYOUT, resolved_splits

_TURNED = ("image was turned upright by its EXIF orientation", "images were turned upright by their EXIF orientation")
_TWICE = ("image is in more than one class", "different images are in more than one class")


class ImageSource(Protocol):
    """What labelled images can be read from."""

    @property
    def description(self) -> str:
        """Where it comes from, in words or as a path."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes when the source does; cheap."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What was left out or taken as something else; known when all samples have been read."""
        ...

    def samples(self, progress: Progress, fit: Fit) -> Iterator[Sample]:
        """Every image, in any order.

        Raises:
            M1Error: BAD_DATA naming the file, DOWNLOAD_FAILED.
        """
        ...


@dataclass
class _Read:
    """What has been read of a split: its images in a file, in the source's order."""

    raw: BinaryIO
    index: list[tuple[str, str]] = field(default_factory=list)
    """Of each image its class and its name."""
    hashes: bytearray = field(default_factory=bytearray)
    """Of each image's pixels, 8 bytes."""

    def add(self, sample: Sample) -> None:
        pixels = np.ascontiguousarray(sample.pixels).data
        self.raw.write(pixels)
        self.index.append((sample.label, sample.name))
        self.hashes += hashlib.blake2b(pixels, digest_size=8).digest()


def store_images(directory: Path, source: ImageSource, needs: Sequence[Need], progress: Progress) -> Stored:
    """Read a source's images as they are needed, and write the columns into a directory.

    Raises:
        M1Error: BAD_DATA naming the file, DOWNLOAD_FAILED.
    """
    need = next(need for need in needs if need.kind == "image")
    fit = Fit.of(need)
    with contextlib.ExitStack() as files:
        read: dict[str, _Read] = {}
        turned = 0
        for sample in source.samples(progress, fit):
            if sample.split not in read:
                path = directory / f"{sample.split}.raw"
                read[sample.split] = _Read(files.enter_context(open(path, "w+b")))
            read[sample.split].add(sample)
            turned += sample.turned
        names = resolved_splits(read, source.description)
        splits = {names[split]: part for split, part in read.items()}
        classes = _checked_classes(source.description, splits)
        columns = (
            Column("image", "image", "uint8", (fit.size, fit.size, 3), dict(need.options)),
            Column("label", "label", "int64", classes=classes),
        )
        digest = hashlib.sha256("\n".join(classes).encode())
        if normalised(needs) != IMAGES_OF_32:
            digest.update(declaration(columns))
        for split in SPLITS:
            if split in splits:
                _store_split(directory, split, splits[split], columns, digest)
        for split in read:
            (directory / f"{split}.raw").unlink()
    notes = [*source.notes, *([counted(turned, *_TURNED)] if turned else [])]
    twice = _in_several_classes(list(splits.values()))
    warnings = [counted(twice, *_TWICE)] if twice else []
    rows = {split: len(splits[split].index) for split in SPLITS if split in splits}
    return Stored(columns, rows, digest.hexdigest(), notes, warnings)


def _store_split(directory: Path, split: str, read: _Read, columns: Sequence[Column], digest: Digest) -> None:
    """From the source's order into the order of (class, name)."""
    image, label = columns
    order = sorted(range(len(read.index)), key=read.index.__getitem__)
    shape = (len(order), *image.shape)
    rows = rows_of(read.raw, order, int(np.prod(image.shape)))
    write_array(file_of(directory, split, "image"), image.dtype, shape, rows, digest)
    number = {name: i for i, name in enumerate(label.classes)}
    labels = np.array([number[read.index[i][0]] for i in order], np.int64)
    write_array(file_of(directory, split, "label"), label.dtype, labels.shape, [labels.tobytes()], digest)


def _checked_classes(source: str, splits: dict[str, _Read]) -> list[str]:
    """The class names, sorted."""
    found = {split: {label for label, _ in read.index} for split, read in splits.items()}
    classes = sorted(found["train"])
    for split, labels in found.items():
        for label in sorted(labels - set(classes)):
            raise bad_data(
                source, f'has images of the class "{label}" in {split} and none in train', "add some to train"
            )
    if len(classes) < 2:
        raise bad_data(source, f'has only one class, "{classes[0]}"', f"it takes two classes at least; {LAYOUT}")
    return classes


def _in_several_classes(parts: Sequence[_Read]) -> int:
    """How many different images have more than one class."""
    number = {label: i for i, label in enumerate(sorted({label for part in parts for label, _ in part.index}))}
    hashes = np.concatenate([np.frombuffer(bytes(part.hashes), np.uint64) for part in parts])
    labels = np.array([number[label] for part in parts for label, _ in part.index])
    order = np.lexsort((labels, hashes))
    hashes, labels = hashes[order], labels[order]
    same = hashes[1:] == hashes[:-1]
    return len(np.unique(hashes[1:][same & (labels[1:] != labels[:-1])]))
