"""The names of datasets, what is known of a source before it is read, and what the cache says of those in it.

A dataset that has been read stands as one directory in the home's `data/`; its manifest is written last, so a
directory without one is not a dataset yet. The arrays inside are the training process's business; the names are
everybody's. One name, or one path, may be there several times: once for each way in which it was read.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from m1.columns import IMAGES_OF_32, Column, Kind, Need, fits, key_of_needs, kind_words, normalised, words_of
from m1.durable import read_regular
from m1.errors import M1Error, Reason, nearest
from m1.file_kinds import Gives, is_litter, kind_by_name, kind_of_file
from m1.typed import LARGEST, parsed, record

BUILT_IN = {
    "digits": "scikit-learn's handwritten digits, inside its package: nothing to download",
    "cifar10": "CIFAR-10, torchvision's archive (170 MB download, once)",
    "stdlib": "the source text of Python's own standard library, about 4 MB: nothing to download",
}
MANIFEST = "dataset.json"
# What a directory of the cache is called, with a dash and more, while it is being made or removed.
ABANDONED = ".building"

_IMAGES: tuple[Kind, ...] = ("image", "label")
_TEXT: tuple[Kind, ...] = ("text",)
_KINDS_OF_BUILT_IN = {"digits": _IMAGES, "cifar10": _IMAGES, "stdlib": _TEXT}
_KINDS: Mapping[Gives, Sequence[Kind]] = {"images": _IMAGES, "text": _TEXT, "table": ("vector",)}
# How many files of a folder are looked at to tell what it has.
_MOST_LOOKED_AT = 1000
_WHAT_IS_READ = "a folder, tar or ZIP archive of <class>/<image>, a text file or a folder of texts"
_ANOTHER = "choose other data, or another recipe"


@dataclass(frozen=True)
class CachedDataset:
    """A dataset in the cache."""

    name: str
    """What a job's `data` takes: a name, or the absolute path that it was read from."""
    source: str
    """Where it was read from, in words or as a path."""
    rows: Mapping[str, int]
    """By split: "train" and, if there is one, "test"."""
    columns: Sequence[Column]
    size_bytes: int
    create_time: float
    """Seconds since the epoch."""
    needs: Sequence[Need] = IMAGES_OF_32
    """What it was read for."""
    notes: Sequence[str] = field(default_factory=list)
    """What was left out or changed when it was read, a sentence each."""
    warnings: Sequence[str] = field(default_factory=list)
    """What is likely a mistake in it, a sentence each."""

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from the other datasets of the cache: its name, and the key of what it was read for."""
        return self.name, key_of_needs(self.needs)

    @property
    def classes(self) -> Sequence[str]:
        """The names of the label's classes; none where there is no label."""
        return next((column.classes for column in self.columns if column.kind == "label"), ())

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of its columns."""
        return tuple(column.kind for column in self.columns)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> CachedDataset:
        """From plain data, also as 0.1.0 wrote it, which knew images of 32 x 32 with a label.

        Raises:
            ValueError: it is not a manifest.
        """
        if isinstance(data, dict) and "train_images" in data:
            columns = json.loads(json.dumps([asdict(column) for column in columns_of_32(data.get("classes"))]))
            data = {
                **data,
                "rows": {split: data.get(f"{split}_images") for split in ("train", "test")},
                "columns": columns,
            }
        return record(cls, data, LARGEST)

    def write(self, directory: Path) -> None:
        """Store the manifest in a directory that is not published yet."""
        (directory / MANIFEST).write_text(json.dumps(self.to_json(), indent=1))


def columns_of_32(classes: Any) -> tuple[Column, Column]:
    """The columns that every dataset of 0.1.0 had."""
    image = Column("image", "image", "uint8", (32, 32, 3), dict(IMAGES_OF_32[0].options))
    return image, Column("label", "label", "int64", classes=classes)


def read_manifest(directory: Path) -> CachedDataset | None:
    """The manifest of a directory of the cache; None where there is none that this version can read."""
    with contextlib.suppress(OSError, ValueError):  # not written by this version: it is read again when it is wanted
        return CachedDataset.from_json(parsed(read_regular(directory / MANIFEST)))
    return None


def directories(data_root: Path) -> Iterator[tuple[Path, CachedDataset]]:
    """Every directory of the cache with its manifest, earlier versions too. What is not a dataset is passed over."""
    for path in sorted(data_root.glob(f"[!.]*/{MANIFEST}")):
        if manifest := read_manifest(path.parent):
            yield path.parent, manifest


def cached_datasets(data_root: Path) -> list[CachedDataset]:
    """Every dataset in the cache, by name; the newest of each name and way of reading."""
    found: dict[tuple[str, str], CachedDataset] = {}
    for _, dataset in directories(data_root):
        known = found.get(dataset.key)
        if known is None or known.create_time < dataset.create_time:
            found[dataset.key] = dataset
    return [found[key] for key in sorted(found)]


def dataset_directories(data_root: Path, name: str) -> list[Path]:
    """The directories of every version of a dataset in the cache, whatever it was read for."""
    return [directory for directory, manifest in directories(data_root) if manifest.name == name]


def kinds_of(data_root: Path, source: str) -> Sequence[Kind] | None:
    """The kinds of columns that a source has, found without reading it; None if it cannot be told."""
    if os.path.isabs(source) and os.path.exists(source):
        if os.path.isdir(source):
            return _kinds_of_folder(source)
        kind = kind_of_file(source)
        return _KINDS.get(kind.gives) if kind else None
    found = [manifest for manifest in cached_datasets(data_root) if manifest.name == source]
    if found:
        return max(found, key=lambda manifest: manifest.create_time).kinds
    return _KINDS_OF_BUILT_IN.get(source)


def check_name_is_free(data_root: Path, name: str, source: str) -> None:
    """Refuse to import under the name of a dataset that was read from another path. CIFAR-10 may come from anywhere.

    Raises:
        M1Error: NAME_TAKEN.
    """
    for dataset in cached_datasets(data_root):
        if dataset.name == name != "cifar10" and dataset.source != str(Path(source)):
            raise M1Error(
                Reason.NAME_TAKEN,
                f'the name "{name}" is taken by the dataset read from {dataset.source}',
                "choose another",
                field="name",
                value=name,
            )


def check_source(data_root: Path, source: str, needs: Sequence[Need] = ()) -> None:
    """Refuse what is neither a known name nor a path that exists; with needs, also what cannot give them.

    What the cache holds for these needs is good whatever has become of its source.

    Raises:
        M1Error: DATASET_NOT_FOUND, or BAD_DATA for what does not fit.
    """
    cached = [dataset for dataset in cached_datasets(data_root) if dataset.name == source]
    if needs and source not in BUILT_IN and any(d.key[1] == key_of_needs(normalised(needs)) for d in cached):
        return
    _check_exists(data_root, source, cached, needs)
    if needs:
        _check_fits(data_root, source, needs)


def _check_exists(data_root: Path, source: str, cached: Sequence[CachedDataset], needs: Sequence[Need]) -> None:
    if source in BUILT_IN or (os.path.isabs(source) and os.path.exists(source)):
        return
    if cached:
        if needs and not os.path.exists(cached[0].source):
            held = " and ".join(words_of(dataset.columns) for dataset in cached)
            raise M1Error(
                Reason.DATASET_NOT_FOUND,
                f'the cache holds "{source}" as {held}, its source {cached[0].source} is gone, '
                f"and {words_of(needs)} would have to be read from it",
                "bring the source back, or take the settings that it was read with",
                field="data",
                value=source,
            )
        return
    if os.path.isabs(source):
        raise M1Error(
            Reason.DATASET_NOT_FOUND,
            f'data "{source}" does not exist on {socket.gethostname()}, where it is to be trained',
            f"name {_WHAT_IS_READ}, or a dataset that m1ctl data list shows",
            field="data",
            value=source,
        )
    names = {dataset.name for dataset in cached_datasets(data_root)} | set(BUILT_IN)
    raise M1Error(
        Reason.DATASET_NOT_FOUND,
        f'there is no dataset "{source}"',
        nearest(source, (name for name in names if not os.path.isabs(name))),
        field="data",
        value=source,
    )


def _check_fits(data_root: Path, source: str, needs: Sequence[Need]) -> None:
    if os.path.isabs(source) and not os.path.isdir(source):
        _check_file_fits(source, needs)
        return
    kinds = kinds_of(data_root, source)
    if kinds is not None and not fits(needs, kinds):
        held = "tables" if kinds == _KINDS["table"] else kind_words(kinds)
        raise _unfit(source, f"has {held}; expected {words_of(needs)}", _ANOTHER)


def _check_file_fits(path: str, needs: Sequence[Need]) -> None:
    facts = os.stat(path)
    if not stat.S_ISREG(facts.st_mode):
        raise _unfit(path, "is neither a file nor a folder", f"name {_WHAT_IS_READ}")
    if not facts.st_size:
        raise _unfit(path, "is empty (0 bytes)", f"name {_WHAT_IS_READ}")
    kind = kind_of_file(path)
    if kind is None or (kind.is_text and [need.kind for need in needs] == ["text"]):
        return
    if not fits(needs, _KINDS.get(kind.gives, ())):
        raise _unfit(path, f"is {kind.words}; expected {words_of(needs)}", kind.way_out)


def _unfit(source: str, problem: str, way_out: str) -> M1Error:
    return M1Error(Reason.BAD_DATA, f'"{source}" {problem}', way_out, field="data", value=source)


def _kinds_of_folder(path: str) -> Sequence[Kind] | None:
    """What most of its first files are, by name: a folder of pictures may hold a readme, and one of texts a picture."""
    found: Counter[Sequence[Kind]] = Counter()
    for name in itertools.islice(_files(path), _MOST_LOOKED_AT):
        kind = kind_by_name(name)
        gives = "images" if kind and kind.gives == "one image" else kind.gives if kind else ""
        if gives:
            found[_KINDS[gives]] += 1
    return max(found, key=lambda kinds: found[kinds], default=None)


def _files(path: str) -> Iterator[str]:
    for _, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not is_litter(name))
        yield from sorted(name for name in files if not is_litter(name))
