"""A folder of `<split>/<class>/<image>` or `<class>/<image>`, perhaps inside other folders that hold nothing else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from m1.errors import M1Error
from m1.file_kinds import is_litter, kind_by_name

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
    Remarks,
    check_splits,
    is_in_cloud,
    notes_on_splits,
    resolved_splits,
    split_of,
    unknown_split,
)

_Entry = os.DirEntry[str]
# Folders around the dataset: far more than anybody has, and an end to a link that leads back.
_MOST_WRAPPERS = 8


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
        self._remarks = Remarks()
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
        return self._split_notes + self._remarks.notes

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
        top = self._unwrapped(root)
        named = [entry.name for entry in top if split_of(entry.name) and _holds_folders(entry)]
        if not named:
            self._check_not_flat(root, top)
            yield from self._classes(top, "train")
            return
        check_splits(named, root)
        resolved = resolved_splits([split_of(name) or "" for name in named], root)
        self._split_notes = notes_on_splits(named)
        for entry in top:
            split = split_of(entry.name)
            if split is None or entry.name not in named:
                raise unknown_split(entry.name, root)
            yield from self._classes(self._folders(entry), resolved[split])

    def _unwrapped(self, root: Path) -> list[_Entry]:
        """The folders of the dataset: where one holds but another one that is neither a split nor a class, its."""
        top = self._folders(root)
        for _ in range(_MOST_WRAPPERS):
            if len(top) != 1 or split_of(top[0].name) or not _holds_folders(top[0]):
                break
            top = self._folders(top[0])
        return top

    def _check_not_flat(self, root: Path, top: list[_Entry]) -> None:
        if all(split_of(entry.name) for entry in top):
            names = " and ".join(f'"{entry.name}"' for entry in top)
            raise bad_data(root, f"has its pictures directly in {names}, with no folder for each class", LAYOUT)

    def _classes(self, folders: list[_Entry], split: str) -> Iterator[_Listed]:
        for folder in folders:
            label = self._remarks.class_of(folder.name, folder.path)
            empty = True
            for image in _entries(folder, litter=True):
                if self._remarks.takes(image.name):
                    continue
                if image.is_dir():
                    raise bad_data(image.path, "is a folder inside a class's folder", LAYOUT)
                yield _listed(split, label, image)
                empty = False
            if empty:
                raise _empty_class(folder)

    def _folders(self, folder: Path | _Entry) -> list[_Entry]:
        """The folders in one that holds nothing else to be read."""
        entries = _entries(folder)
        if not entries:
            raise bad_data(os.fspath(folder), "is empty", LAYOUT)
        folders = [entry for entry in entries if entry.is_dir()]
        for entry in entries:
            if not entry.is_dir() and not self._remarks.takes(entry.name):
                raise bad_data(entry.path, "is not in a class's folder", LAYOUT)
        if not folders:
            raise bad_data(os.fspath(folder), "holds no folders of images", LAYOUT)
        return folders


def _holds_folders(folder: _Entry) -> bool:
    """Return True for a split, or a wrapper, and not for a class."""
    return any(found.is_dir() for found in _entries(folder))


def _listed(split: str, label: str, image: _Entry) -> _Listed:
    if not image.is_file():
        problem = "is a link to nothing" if image.is_symlink() else "is not a file"
        raise bad_data(image.path, problem, "put the picture itself there")
    facts = image.stat()
    return _Listed(split, label, image.path, facts.st_size, facts.st_mtime_ns)


def _empty_class(folder: _Entry) -> M1Error:
    names = os.listdir(folder)
    if any(is_in_cloud(name) for name in names):
        return bad_data(folder.path, "is a class without an image", "download its pictures from iCloud")
    kind = next((kind for name in sorted(names) if (kind := kind_by_name(name))), None)
    if kind:
        return bad_data(folder.path, f"is a class without an image: it has {kind.words}", kind.way_out)
    return bad_data(folder.path, "is a class without an image", "put images into it, or take the folder away")


def _entries(folder: Path | _Entry, *, litter: bool = False) -> list[_Entry]:
    with os.scandir(folder) as found:
        return sorted((entry for entry in found if litter or not is_litter(entry.name)), key=lambda entry: entry.name)
