"""Data that a recipe reads itself: arrays, kept with the job, or a torch Dataset, drawn from the engine's randomness.

Arrays are stored in the job's directory when the job begins, and are what it learns from until its end, whatever
becomes of the source. A Dataset makes its samples when they are wanted, from a source that must stay; before each one
torch's, NumPy's and Python's generators are set from seed, epoch and sample, so that what it draws is the same after a
resume.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from m1.durable import replace_file, sync_directory
from m1.errors import M1Error, Reason
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from m1train.randomness import Draw, set_sample_generators
from m1train.task.recipe import AnyTask, Arrays, DataInfo, Samples, UnfitError

_MANIFEST = "own.json"
# What a Dataset's pair is called in a batch.
_PAIR = ("input", "target")
Read = Mapping[str, Arrays | torch.utils.data.Dataset[Any]]


@dataclass(frozen=True)
class DatasetSamples:
    """A torch Dataset with a length, as samples."""

    dataset: torch.utils.data.Dataset[Any]
    seed: int
    draws_from_generators: bool = True

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # whether it has one is checked when it is read

    def take(self, indices: NDArray[np.int64], draw: Draw | None) -> Mapping[str, Tensor]:
        """See Samples."""
        items = []
        for index in indices.tolist():
            set_sample_generators(self.seed, draw.epoch if draw else None, index)
            items.append(_named(self.dataset[index]))
        collated: dict[str, Tensor] = default_collate(items)
        return collated


def _named(item: Any) -> dict[str, Any]:
    if isinstance(item, Mapping):
        return dict(item)
    values = item if isinstance(item, (tuple, list)) else (item,)
    names = _PAIR if len(values) <= len(_PAIR) else [str(i) for i in range(len(values))]
    return dict(zip(names, values, strict=False))


@dataclass(frozen=True)
class OwnData:
    """What a recipe has read: the samples of "train" and perhaps of "test", and what they are known by."""

    info: DataInfo
    train: Samples
    test: Samples | None
    sha256: str


def own_samples(task: AnyTask, source: Path) -> tuple[DataInfo, Samples]:
    """Read a source by its recipe for a rehearsal; nothing is stored."""
    read = _checked(task.read(source))
    info = DataInfo({}, task.facts(_arrays(read["train"])))
    return info, _samples(task, read["train"], info)


def own_data(task: AnyTask, source: Path, directory: Path, facts: Mapping[str, Any] | None) -> OwnData:
    """Open what the job has stored of its data, or read them by its recipe, and store them.

    `facts` are those of the checkpoint that the job goes on from, if there is one.

    Raises:
        M1Error: DATASET_NOT_FOUND; BAD_DATA for stored arrays that cannot be read any more.
        UnfitError: what the recipe gives is neither arrays nor a Dataset.
    """
    stored = directory / "data"
    if not (stored / _MANIFEST).exists():
        if not source.exists():
            message = f'data "{source}" does not exist'
            raise M1Error(Reason.DATASET_NOT_FOUND, message, "put it back, or submit another", "data", str(source))
        read = _checked(task.read(source))
        if any(isinstance(split, torch.utils.data.Dataset) for split in read.values()):
            info = DataInfo({}, facts if facts is not None else task.facts(_arrays(read["train"])))
            made = {name: _samples(task, split, info) for name, split in read.items()}
            return OwnData(info, made["train"], made.get("test"), _source_sha256(source))
        _store(stored, read)
    opened, sha256 = _open(stored)
    info = DataInfo({}, facts if facts is not None else task.facts(opened["train"]))
    made = {name: task.samples(arrays, info) for name, arrays in opened.items()}
    return OwnData(info, made["train"], made.get("test"), sha256)


def _arrays(split: Arrays | torch.utils.data.Dataset[Any]) -> Arrays:
    return split if isinstance(split, Mapping) else {}


def _samples(task: AnyTask, split: Arrays | torch.utils.data.Dataset[Any], info: DataInfo) -> Samples:
    if isinstance(split, Mapping):
        return task.samples(split, info)
    return DatasetSamples(split, task.config.seed)


def _checked(read: object) -> Read:
    if not isinstance(read, Mapping) or "train" not in read or not set(read) <= {"train", "test"}:
        raise UnfitError("read", 'read gives no mapping with "train" and perhaps "test"')
    for name, split in read.items():
        if isinstance(split, torch.utils.data.Dataset):
            if not hasattr(split, "__len__"):
                raise UnfitError("read", f'read gives a Dataset without a length for "{name}"')
            n = len(split)
        else:
            n = _checked_arrays(name, split)
        if not n:
            raise UnfitError("read", f'read gives no rows for "{name}"')
    return read


def _checked_arrays(name: str, split: object) -> int:
    """Count the rows of a split's arrays."""
    if not isinstance(split, Mapping) or not split or not all(isinstance(a, np.ndarray) for a in split.values()):
        raise UnfitError("read", f'read gives neither arrays by name nor a torch Dataset for "{name}"')
    for key, array in split.items():
        if array.dtype.hasobject or array.dtype.kind not in "biufc":
            problem = f'read gives "{key}" as an array of {array.dtype.name}, of which no tensor can be made'
            raise UnfitError("read", problem, "give numbers")
        if not array.ndim:
            raise UnfitError("read", f'read gives "{key}" as a single number, and not as an array of rows')
    lengths = {key: len(array) for key, array in split.items()}
    if len(set(lengths.values())) > 1:
        raise UnfitError("read", f'read gives arrays of different lengths for "{name}": {lengths}')
    return next(iter(lengths.values()))


def _store(stored: Path, read: Read) -> None:
    stored.mkdir(mode=0o700, exist_ok=True)
    named: dict[str, dict[str, str]] = {}
    for split, arrays in read.items():
        assert isinstance(arrays, Mapping)
        named[split] = {}
        for number, (key, array) in enumerate(arrays.items()):
            file = f"{split}-{number}.npy"
            np.save(stored / file, array, allow_pickle=False)
            named[split][key] = file
    sync_directory(stored)
    digests = {
        file: hashlib.sha256((stored / file).read_bytes()).hexdigest()
        for files in named.values()
        for file in files.values()
    }
    text = json.dumps({"splits": named, "sha256": digests}, indent=1)
    replace_file(stored / _MANIFEST, text.encode(), durable=True)


def _open(stored: Path) -> tuple[dict[str, dict[str, NDArray[Any]]], str]:
    manifest = json.loads((stored / _MANIFEST).read_bytes())
    opened: dict[str, dict[str, NDArray[Any]]] = {}
    for split, files in manifest["splits"].items():
        opened[split] = {}
        for key, file in files.items():
            try:
                opened[split][key] = np.load(stored / file, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                message = f'what was stored of the job\'s data is damaged ("{stored / file}": {error})'
                raise M1Error(Reason.BAD_DATA, message, "submit the job again", "data", str(stored)) from error
    digest = hashlib.sha256(json.dumps([manifest["splits"], manifest["sha256"]], sort_keys=True).encode())
    return opened, digest.hexdigest()


def _source_sha256(source: Path) -> str:
    """Hash the names, sizes and times of a source's files: it changes when they do."""
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    facts = [
        (os.fsdecode(path.relative_to(source.parent)), s.st_size, s.st_mtime_ns)
        for path in files
        for s in (path.stat(),)
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
