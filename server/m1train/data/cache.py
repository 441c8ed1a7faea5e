"""The cache of datasets: columns that were read once, as memory maps.

    <data root>/<key>/<split>_<name>s.npy   the columns (m1train.data.columns)
                      content.json          the SHA-256 of all of them, and the fingerprint of the source
                      dataset.json          the manifest (m1.datasets), last

A dataset is built in a hidden directory and appears under its key by one rename, so what is there is whole, and two
builders of the same one disturb nobody. Its rows stand in the order of (class, name), so that a folder and a tar of it
are the same dataset to a seed. The key changes with the source's fingerprint and with what it is read for: what has
changed is read again, and a job that began with the old one keeps it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from m1 import datasets
from m1.columns import IMAGES_OF_32, Column, Need, key_of_needs
from m1.datasets import MANIFEST, CachedDataset
from m1.durable import out_of_space, replace_file, sync_directory
from m1.errors import M1Error, Reason
from m1.failpoints import reach
from numpy.typing import NDArray

from m1train.data.columns import Stored, open_columns
from m1train.data.decode import bad_data
from m1train.data.scratch import make_private, scratch_directory

FORMAT = 1
_CONTENT = "content.json"


class Described(Protocol):
    """What the cache must know of a source."""

    @property
    def description(self) -> str:
        """Where it comes from, in words or as a path."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes when the source does; cheap."""
        ...


@dataclass(frozen=True)
class Dataset:
    """A dataset that has been read."""

    manifest: CachedDataset
    content_sha256: str
    """Of all columns: the same for a folder and a tar of it."""
    columns: Mapping[str, Column]
    splits: Mapping[str, Mapping[str, NDArray[Any]]]
    """For "train" and, if there is one, "test": the arrays by name, memory-mapped."""


def key_of(name: str, source: Described, needs: Sequence[Need] = IMAGES_OF_32) -> str:
    """The directory's name: says what it is, and changes with the source and with what it is read for."""
    needed = key_of_needs(needs)
    text = f"{FORMAT}\n{name}\n{source.fingerprint}" + (f"\n{needed}" if needed else "")
    return f"{'path' if os.path.isabs(name) else name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def read_manifest(directory: Path) -> CachedDataset | None:
    """The manifest of a dataset that this version can open; None when there is no such."""
    return datasets.read_manifest(directory) if _content(directory) else None


def newest(data_root: Path, name: str, needs: Sequence[Need] = IMAGES_OF_32) -> Path | None:
    """The directory of the newest dataset of that name that was read for these needs."""
    wanted = (name, key_of_needs(needs))
    found = [(m.create_time, d) for d, m in datasets.directories(data_root) if m.key == wanted and _content(d)]
    return max(found, default=(0, None))[1]


def version(data_root: Path, content_sha256: str) -> Path | None:
    """The directory of a dataset with this content, whatever its name and whatever has become of its source."""
    found = (d for d, _ in datasets.directories(data_root) if (_content(d) or {}).get("sha256") == content_sha256)
    return next(found, None)


def _content(directory: Path) -> Mapping[str, Any] | None:
    try:
        content = json.loads((directory / _CONTENT).read_bytes())
    except (OSError, ValueError):
        return None
    # What another version wrote is read anew, under another key.
    return content if isinstance(content, dict) and content.get("format") == FORMAT else None


def open_dataset(directory: Path) -> Dataset:
    """Map a dataset of the cache.

    Raises:
        M1Error: BAD_DATA, when its files are not what they were written as.
    """
    manifest, content = datasets.read_manifest(directory), _content(directory)
    if manifest is None or content is None:
        raise bad_data(directory, "is not a dataset of the cache")
    return Dataset(
        manifest,
        str(content["sha256"]),
        {column.name: column for column in manifest.columns},
        {split: open_columns(directory, manifest.columns, split, n) for split, n in manifest.rows.items()},
    )


def build(
    data_root: Path,
    name: str,
    needs: Sequence[Need],
    source: Described,
    store: Callable[[Path], Stored],
    check: Callable[[CachedDataset], None] = lambda manifest: None,
) -> Path:
    """Read a source into the cache, unless that is done; return its directory. `check` may refuse what was read.

    `store` reads the source and writes its columns into a directory.

    Raises:
        M1Error: DISK_FULL, NOT_ALLOWED, or what `store` and `check` raise. Nothing half-built remains.
    """
    final = data_root / key_of(name, source, needs)
    known = read_manifest(final)
    if known is not None:
        check(known)
        if newest(data_root, name, needs) != final:  # imported once more: from now on the name means it
            content = json.dumps(replace(known, create_time=time.time()).to_json(), indent=1)
            replace_file(final / MANIFEST, content.encode(), durable=True)
        return final
    try:
        make_private(data_root)
        with scratch_directory(data_root, "building") as directory:
            check(_described(directory, name, needs, source, store(directory)))
            sync_directory(directory)
            reach("before.cache.rename")
            try:
                os.rename(directory, final)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
                return final  # another process was first, with the same rows
            sync_directory(data_root)
    except OSError as error:
        raise _storage_error(data_root, error) from error
    return final


def _described(directory: Path, name: str, needs: Sequence[Need], source: Described, stored: Stored) -> CachedDataset:
    size_bytes = sum(file.stat().st_size for file in directory.iterdir())
    content = {"format": FORMAT, "sha256": stored.sha256, "source_fingerprint": source.fingerprint}
    (directory / _CONTENT).write_text(json.dumps(content))
    manifest = CachedDataset(
        name=name,
        source=source.description,
        rows=stored.rows,
        columns=stored.columns,
        size_bytes=size_bytes,
        create_time=time.time(),
        needs=needs,
        notes=stored.notes,
        warnings=stored.warnings,
    )
    manifest.write(directory)
    return manifest


def _storage_error(data_root: Path, error: OSError) -> M1Error:
    if out_of_space(error):
        return M1Error(Reason.DISK_FULL, f'the disk of "{data_root}" is full', "free some space and try again")
    return M1Error(Reason.NOT_ALLOWED, f'the dataset cannot be stored in "{data_root}" ({error})', field="data_root")
