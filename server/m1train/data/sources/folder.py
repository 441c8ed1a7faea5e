"""A folder of `<split>/<class>/<image>` or `<class>/<image>`, perhaps inside one more folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from m1.datasets import is_litter

from m1train.data.decode import (
    SQUEEZED_TO_32,
    ImageFile,
    Sample,
    bad_data,
    check_size,
    decoded,
)
from m1train.data.fit import Fit
from m1train.data.progress import Progress
from m1train.data.sources.layout import (
    LAYOUT,
    class_of,
    is_in_cloud,
    notes_on_cloud,
    notes_on_splits,
    resolved_splits,
    split_of,
    unknown_split,
)

_Entry = os.DirEntry[str]


@dataclass(frozen=True)
class _Listed:
    split: str
    label: str
    path: str
    size_bytes: int
    mtime_ns: int


class Folder:
    """The source."""

    def __init__(self, path: Path) -> None:
        """List the folder's files.

        Raises:
            M1Error: BAD_DATA, for what is not such a folder.
        """
        self.description = str(path)
        self._in_cloud = 0
        self._split_notes: list[str] = []
        try:
            self._files = list(self._listed(path))
        except OSError as error:
            raise bad_data(error.filename or path, f"cannot be read ({error.strerror})") from error
        listing = "\n".join(f"{os.path.relpath(f.path, path)}\0{f.size_bytes}\0{f.mtime_ns}" for f in self._files)
        self.fingerprint = hashlib.sha256(os.fsencode(f"{path}\n{listing}")).hexdigest()

    @property
    def notes(self) -> list[str]:
        """What was left out or taken as something else, a sentence each."""
        return self._split_notes + notes_on_cloud(self._in_cloud)

    def samples(self, progress: Progress, fit: Fit = SQUEEZED_TO_32) -> Iterator[Sample]:
        """Every image, in the order of the names; progress is in images."""
        for done, sample in enumerate(decoded(self._contents(), fit), 1):
            yield sample
            progress("read", done, len(self._files))

    def _contents(self) -> Iterator[ImageFile]:
        for file in self._files:
            check_size(file.size_bytes, file.path)
            try:
                content = Path(file.path).read_bytes()
            except OSError as error:
                raise bad_data(file.path, f"cannot be read ({error.strerror})") from error
            yield ImageFile(file.split, file.label, os.path.basename(file.path), file.path, content)

    def _listed(self, root: Path) -> Iterator[_Listed]:
        top = _folders(root)
        if len(top) == 1 and not split_of(top[0].name) and _holds_folders_alone(top[0]):
            top = _folders(top[0])
        named = [entry.name for entry in top if split_of(entry.name)]
        if not named:
            yield from self._classes(top, "train")
            return
        self._split_notes = notes_on_splits(named)
        resolved = resolved_splits([split_of(name) or "" for name in named], root)
        for entry in top:
            split = split_of(entry.name)
            if split is None:
                raise unknown_split(entry.name, root)
            yield from self._classes(_folders(entry), resolved[split])

    def _classes(self, folders: list[_Entry], split: str) -> Iterator[_Listed]:
        for folder in folders:
            label = class_of(folder.name, folder.path)
            images = _entries(folder)
            missing = _placeholders(folder)
            self._in_cloud += missing
            if not images:
                hint = "download its pictures from iCloud" if missing else "add images or remove the folder"
                raise bad_data(folder.path, "is a class without an image", hint)
            for image in images:
                if not image.is_file():
                    raise bad_data(image.path, "is not a file", LAYOUT)
                facts = image.stat()
                yield _Listed(split, label, image.path, facts.st_size, facts.st_mtime_ns)


def _folders(folder: Path | _Entry) -> list[_Entry]:
    """The folders in one that must hold nothing else."""
    entries = _entries(folder)
    if not entries:
        raise bad_data(os.fspath(folder), "is empty", LAYOUT)
    for entry in entries:
        if not entry.is_dir():
            raise bad_data(entry.path, "is not in a class's folder", LAYOUT)
    return entries


def _holds_folders_alone(folder: _Entry) -> bool:
    entries = _entries(folder) if folder.is_dir() else []
    return bool(entries) and all(entry.is_dir() for entry in entries)


def _entries(folder: Path | _Entry) -> list[_Entry]:
    with os.scandir(folder) as found:
        return sorted((entry for entry in found if not is_litter(entry.name)), key=lambda entry: entry.name)


def _placeholders(folder: _Entry) -> int:
    return sum(is_in_cloud(name) for name in os.listdir(folder))
