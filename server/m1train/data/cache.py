"""The cache of data sets: images read once, as uint8 memory maps.

    <data root>/<key>/train_images.npy   [N, 32, 32, 3] uint8
                      train_labels.npy   [N] int64
                      test_images.npy, test_labels.npy
                      content.json       the SHA-256 of all of them, and the fingerprint of the source
                      dataset.json       the manifest (m1.datasets), last

A data set is built in a hidden directory and appears under its key by one rename, so what is there is whole, and two
builders of the same one disturb nobody. Images stand in the order of (class, name), so that a folder and a tar of it
are the same data set to a seed. The key changes with the source's fingerprint: what has changed is read again, and a
job that has the old one open keeps it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from m1.columns import IMAGES_OF_32, Column
from m1.datasets import MANIFEST, CachedDataset
from m1.durable import out_of_space, replace_file, sync_directory
from m1.errors import M1Error, Reason
from m1.failpoints import reach
from numpy.typing import NDArray

from m1train.data.decode import SIZE, SPLITS, Pixels, Progress, Source, bad_data
from m1train.data.scratch import make_private, scratch_directory

FORMAT = 1
_CONTENT = "content.json"
_IMAGE_SHAPE = (SIZE, SIZE, 3)


@dataclass(frozen=True)
class Split:
    """Images [N, 32, 32, 3] uint8, memory-mapped, and labels [N] int64."""

    images: Pixels
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """A data set that has been read."""

    manifest: CachedDataset
    content_sha256: str
    """Of all images and labels: the same for a folder and a tar of it."""
    train: Split
    test: Split

    @property
    def columns(self) -> dict[str, Column]:
        """What it has, by name."""
        label = Column("label", "label", "int64", (), {}, tuple(self.manifest.classes))
        return {"image": Column("image", "image", "uint8", _IMAGE_SHAPE, IMAGES_OF_32[0].options), "label": label}

    @property
    def splits(self) -> dict[str, dict[str, NDArray[Any]]]:
        """The columns' values of each split."""
        both = {"train": self.train, "test": self.test}
        return {name: {"image": split.images, "label": split.labels} for name, split in both.items()}


def key_of(name: str, source: Source) -> str:
    """The directory's name: says what it is, and changes with the source."""
    digest = hashlib.sha256(f"{FORMAT}\n{name}\n{source.fingerprint}".encode()).hexdigest()[:16]
    return f"{'path' if os.path.isabs(name) else name}-{digest}"


def read_manifest(directory: Path) -> CachedDataset | None:
    """The manifest of a data set that this version can open; None when there is no such."""
    try:
        if json.loads((directory / _CONTENT).read_bytes())["format"] != FORMAT:
            return None
        return CachedDataset(**json.loads((directory / MANIFEST).read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        return None  # not written by this version: it is read anew, under another key


def newest(data_root: Path, name: str) -> Path | None:
    """The directory of the newest data set of that name."""
    found = [(m.create_time, m.name, d) for d in data_root.glob("[!.]*/") if (m := read_manifest(d))]
    return max((d for d in found if d[1] == name), default=(0, "", None))[2]


def open_dataset(directory: Path) -> Dataset:
    """Map a data set of the cache.

    Raises:
        M1Error: BAD_DATA, when its files are not what they were written as.
    """
    manifest = read_manifest(directory)
    if manifest is None:
        raise bad_data(directory, "is not a data set of the cache")
    content = json.loads((directory / _CONTENT).read_bytes())
    splits = {}
    for split, n in (("train", manifest.train_images), ("test", manifest.test_images)):
        try:
            images = np.load(directory / f"{split}_images.npy", mmap_mode="r", allow_pickle=False)
            labels = np.load(directory / f"{split}_labels.npy", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise bad_data(directory, f"is damaged ({error})", "delete this folder of the cache") from error
        whole = images.shape == (n, *_IMAGE_SHAPE) and images.dtype == np.uint8 and labels.shape == (n,)
        if not whole or labels.dtype != np.int64 or not np.isin(labels, range(len(manifest.classes))).all():
            raise bad_data(directory, "is damaged (shapes)", "delete this folder of the cache")
        splits[split] = Split(images, labels)
    return Dataset(manifest, str(content["sha256"]), splits["train"], splits["test"])


def build(
    data_root: Path,
    name: str,
    source: Source,
    progress: Progress,
    check: Callable[[CachedDataset], None] = lambda manifest: None,
) -> Path:
    """Read a source into the cache, unless that is done; return its directory. `check` may refuse what was read.

    Raises:
        M1Error: BAD_DATA, DOWNLOAD_FAILED, DISK_FULL, or what `check` raises. Nothing half-built remains.
    """
    final = data_root / key_of(name, source)
    known = read_manifest(final)
    if known is not None:
        check(known)
        if newest(data_root, name) != final:  # imported once more, after another one: from now on the name means it
            content = json.dumps(asdict(replace(known, create_time=time.time())), indent=1)
            replace_file(final / MANIFEST, content.encode(), durable=True)
        return final
    try:
        make_private(data_root)
        with scratch_directory(data_root, "building") as directory:
            check(_fill(directory, name, source, progress))
            sync_directory(directory)
            reach("before.cache.rename")
            try:
                os.rename(directory, final)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
                return final  # another process was first, with the same images
            sync_directory(data_root)
    except OSError as error:
        raise _storage_error(data_root, error) from error
    return final


def _storage_error(data_root: Path, error: OSError) -> M1Error:
    if out_of_space(error):
        return M1Error(Reason.DISK_FULL, f'the disk of "{data_root}" is full', "free some space and try again")
    return M1Error(Reason.NOT_ALLOWED, f'the data set cannot be stored in "{data_root}" ({error})', field="data_root")


def _fill(directory: Path, name: str, source: Source, progress: Progress) -> CachedDataset:
    with contextlib.ExitStack() as files:
        raw = {split: files.enter_context(open(directory / f"{split}.raw", "w+b")) for split in SPLITS}
        index: dict[str, list[tuple[str, str]]] = {split: [] for split in SPLITS}
        for sample in source.samples(progress):
            raw[sample.split].write(sample.pixels.tobytes())
            index[sample.split].append((sample.label, sample.name))
        classes = _checked_classes(source.description, index)
        digest = hashlib.sha256("\n".join(classes).encode())
        for split in SPLITS:
            _store_split(directory, split, raw[split], index[split], classes)
            (directory / f"{split}.raw").unlink()
            for part in ("images", "labels"):
                array = np.load(directory / f"{split}_{part}.npy", mmap_mode="r", allow_pickle=False)
                digest.update(np.ascontiguousarray(array).data)
    size_bytes = sum(file.stat().st_size for file in directory.iterdir())
    content = {"format": FORMAT, "sha256": digest.hexdigest(), "source_fingerprint": source.fingerprint}
    (directory / _CONTENT).write_text(json.dumps(content))
    manifest = CachedDataset(
        name=name,
        source=source.description,
        train_images=len(index["train"]),
        test_images=len(index["test"]),
        classes=classes,
        size_bytes=size_bytes,
        create_time=time.time(),
    )
    manifest.write(directory)
    return manifest


def _store_split(
    directory: Path, split: str, raw: BinaryIO, index: list[tuple[str, str]], classes: Sequence[str]
) -> None:
    """From the source's order into the order of (class, name)."""
    raw.flush()
    unsorted: Pixels = np.memmap(raw, np.uint8, "r", shape=(len(index), *_IMAGE_SHAPE))
    order = np.array(sorted(range(len(index)), key=index.__getitem__))
    images = np.lib.format.open_memmap(
        directory / f"{split}_images.npy", mode="w+", dtype=np.uint8, shape=unsorted.shape
    )
    for start in range(0, len(order), 4096):
        chosen = order[start : start + 4096]
        images[start : start + 4096] = unsorted[chosen]
    images.flush()
    number = {label: i for i, label in enumerate(classes)}
    labels = np.array([number[index[i][0]] for i in order], np.int64)
    np.save(directory / f"{split}_labels.npy", labels, allow_pickle=False)


def _checked_classes(source: str, index: dict[str, list[tuple[str, str]]]) -> list[str]:
    """The class names, sorted."""
    for split in SPLITS:
        if not index[split]:
            raise bad_data(source, f'has no split "{split}"', "it takes images under train/<class>/ and test/<class>/")
    classes = sorted({label for label, _ in index["train"]})
    for label in sorted({label for label, _ in index["test"]} - set(classes)):
        raise bad_data(source, f'has images of the class "{label}" in test and none in train', "add some to train")
    if len(classes) < 2:
        raise bad_data(source, f'has only one class, "{classes[0]}"', "it takes two classes at least to tell apart")
    return classes
