"""The names of data sets, and what the cache says of those in it.

A data set that has been read stands as one directory in the home's `data/`; its manifest is written last, so a
directory without one is not a data set yet. The images inside are the training process's business; the names are
everybody's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from m1.errors import M1Error, Reason, nearest

BUILT_IN = {
    "digits": "scikit-learn's handwritten digits, inside its package: nothing to download",
    "cifar10": "CIFAR-10, torchvision's archive (170 MB download, once)",
}
MANIFEST = "dataset.json"
# What a directory of the cache is called, with a dash and more, while it is being made or removed.
ABANDONED = ".building"


@dataclass(frozen=True)
class CachedDataset:
    """A data set in the cache."""

    name: str
    """What a job's `data` takes: a name, or the absolute path that it was read from."""
    source: str
    """Where it was read from, in words or as a path."""
    train_images: int
    test_images: int
    classes: Sequence[str]
    size_bytes: int
    create_time: float
    """Seconds since the epoch."""

    def write(self, directory: Path) -> None:
        """Store the manifest in a directory that is not published yet."""
        (directory / MANIFEST).write_text(json.dumps(asdict(self), indent=1))


def cached_datasets(data_root: Path) -> list[CachedDataset]:
    """Every data set in the cache, by name; the newest of each name. What is not one is passed over."""
    found: dict[str, CachedDataset] = {}
    for manifest in sorted(data_root.glob(f"[!.]*/{MANIFEST}")):
        try:
            dataset = CachedDataset(**json.loads(manifest.read_bytes()))
        except (ValueError, TypeError):
            continue  # not written by this version: it will be read again when it is wanted
        known = found.get(dataset.name)
        if known is None or known.create_time < dataset.create_time:
            found[dataset.name] = dataset
    return [found[name] for name in sorted(found)]


def dataset_directories(data_root: Path, name: str) -> list[Path]:
    """The directories of every version of a data set in the cache."""
    found = []
    for manifest in sorted(data_root.glob(f"[!.]*/{MANIFEST}")):
        try:
            if json.loads(manifest.read_bytes())["name"] == name:
                found.append(manifest.parent)
        except (ValueError, TypeError, KeyError):
            continue  # not written by this version
    return found


def check_name_is_free(data_root: Path, name: str, source: str) -> None:
    """Refuse to import under the name of a data set that was read from another path. CIFAR-10 may come from anywhere.

    Raises:
        M1Error: NAME_TAKEN.
    """
    for dataset in cached_datasets(data_root):
        if dataset.name == name != "cifar10" and dataset.source != str(Path(source)):
            raise M1Error(
                Reason.NAME_TAKEN,
                f'the name "{name}" is taken by the data set read from {dataset.source}',
                "choose another",
                field="name",
                value=name,
            )


def check_source(data_root: Path, source: str) -> None:
    """Refuse what is neither a known name nor a path that exists.

    Raises:
        M1Error: DATASET_NOT_FOUND.
    """
    names = {dataset.name for dataset in cached_datasets(data_root)} | set(BUILT_IN)
    if source in names or (os.path.isabs(source) and os.path.exists(source)):
        return
    if os.path.isabs(source):
        raise M1Error(
            Reason.DATASET_NOT_FOUND,
            f'data "{source}" does not exist',
            "name a folder or a tar of <split>/<class>/<image>, or a data set that m1ctl data list shows",
            field="data",
            value=source,
        )
    raise M1Error(
        Reason.DATASET_NOT_FOUND,
        f'there is no data set "{source}"',
        nearest(source, (name for name in names if not os.path.isabs(name))),
        field="data",
        value=source,
    )
