"""A tar, of any compression that tarfile reads, of `<split>/<class>/<image>` or `<class>/<image>`.

Both may lie below any number of leading folders; all images lie as the first one does. It is read as a stream and never
unpacked to the disk. Links, devices and names that lead out of the tar are refused all the same: a tar that has them is
not what it says.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from m1.datasets import is_litter
from m1.errors import M1Error

from m1train.data.decode import SQUEEZED_TO_32, ImageFile, Sample, bad_data, check_size, decoded
from m1train.data.fit import Fit
from m1train.data.progress import Progress
from m1train.data.sources import cifar10
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
from m1train.data.sources.tar import READ_ERRORS, TarHeaderError, is_compressed, open_tar

_ANEW = "make the tar anew, "


class _Layout:
    """How the images of a tar lie, as far as it has been read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._root: tuple[str, ...] | None = None
        self._with_splits = False
        self._images: set[tuple[str, ...]] = set()
        self._folders: set[tuple[str, ...]] = set()
        self._filled: set[tuple[str, ...]] = set()
        self.split_names: list[str] = []

    def add_folder(self, parts: tuple[str, ...]) -> None:
        """Take note of a folder: it may be a class without an image."""
        self._folders.add(parts)

    def place(self, parts: tuple[str, ...], where: str) -> tuple[str, str]:
        """The split and the class of an image; refuses one that lies otherwise than those before."""
        with_split = len(parts) >= 3 and split_of(parts[-3]) is not None
        if len(parts) < 2 or (not with_split and split_of(parts[-2])):
            raise bad_data(where, "is not in a class's folder", LAYOUT)
        root = parts[:-3] if with_split else parts[:-2]
        if self._root is None:
            self._root, self._with_splits = root, with_split
        if with_split != self._with_splits:
            raise self._mixed(parts, where)
        if root != self._root:
            raise bad_data(where, "belongs to a second data set in the same tar", LAYOUT)
        if parts in self._images:
            raise bad_data(where, "stands twice in the tar", f"{_ANEW}with each image once")
        self._images.add(parts)
        self._filled.add(parts[:-1])
        return self._split(parts[-3]) if with_split else "train", class_of(parts[-2], where)

    def check_whole(self) -> None:
        """Refuse a tar without images, and a class without one."""
        if self._root is None:
            raise bad_data(self._path, "holds no images", LAYOUT)
        depth = len(self._root) + (2 if self._with_splits else 1)
        for folder in sorted(self._folders - self._filled):
            if len(folder) == depth and folder[: len(self._root)] == self._root:
                where = f"{self._path}:{'/'.join(folder)}"
                raise bad_data(where, "is a class without an image", "add images or remove the folder")

    def _split(self, name: str) -> str:
        if name not in self.split_names:
            self.split_names.append(name)
            found = {split_of(known) or "" for known in self.split_names}
            resolved_splits(found | {"train"}, self._path)  # which may be still to come
        return split_of(name) or ""

    def _mixed(self, parts: tuple[str, ...], where: str) -> M1Error:
        assert self._root is not None
        if self._with_splits and parts[:-3] == self._root and len(parts) >= 3:
            return unknown_split(parts[-3], self._path)
        if self._root and not self._with_splits and parts[:-3] == self._root[:-1]:
            return unknown_split(self._root[-1], self._path)
        return bad_data(where, "is not in a class's folder", LAYOUT)


class Archive:
    """The source."""

    def __init__(self, path: Path) -> None:
        """Look at the file's size and time.

        Raises:
            M1Error: BAD_DATA, for an empty or unreadable file.
        """
        self._path = path
        self._layout, self._in_cloud = _Layout(path), 0
        self.description = str(path)
        try:
            facts = path.stat()
        except OSError as error:
            raise bad_data(path, f"cannot be read ({error.strerror})") from error
        if not facts.st_size:
            raise bad_data(path, "is empty (0 bytes)", LAYOUT)
        identity = os.fsencode(f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}")
        self.fingerprint = hashlib.sha256(identity).hexdigest()

    @property
    def notes(self) -> list[str]:
        """What was left out or taken as something else, a sentence each; known when all samples have been read."""
        return notes_on_splits(self._layout.split_names) + notes_on_cloud(self._in_cloud)

    def samples(self, progress: Progress, fit: Fit = SQUEEZED_TO_32) -> Iterator[Sample]:
        """Every image, in the tar's order; progress is in images, of a number that is known at the end.

        A split for validation is still called "val".
        """
        if cifar10.is_archive(self._path):
            cifar10.check_archive(self._path)
            yield from cifar10.archive_samples(self._path, progress, fit)
            return
        done = 0
        for done, sample in enumerate(decoded(self._files(), fit), 1):
            yield sample
            progress("read", done, 0)
        progress("read", done, done)

    def _files(self) -> Iterator[ImageFile]:
        try:
            with open(self._path, "rb") as raw, self._opened(raw) as tar:
                yield from self._members(tar)
        except TarHeaderError as error:
            raise bad_data(self._path, f"is not a whole tar ({error})", LAYOUT) from error
        except READ_ERRORS as error:
            raise bad_data(self._path, f"is not a whole tar ({error or type(error).__name__})", LAYOUT) from error
        except MemoryError as error:
            raise bad_data(self._path, "asks for more memory than there is", "make the tar anew") from error
        self._layout.check_whole()

    def _members(self, tar: tarfile.TarFile) -> Iterator[ImageFile]:
        self._layout, self._in_cloud = _Layout(self._path), 0
        for member in tar:
            where = f"{self._path}:{member.name}"
            check_size(min(member.size, 0), where)  # one below zero would lead tarfile back, whatever it is
            parts = _checked_parts(member, where)
            if parts is None:
                self._in_cloud += is_in_cloud(member.name.rpartition("/")[2])
            elif member.isdir():
                self._layout.add_folder(parts)
            else:
                split, label = self._layout.place(parts, where)
                check_size(member.size, where)
                content = tar.extractfile(member)
                assert content is not None  # only a regular file gets here
                yield ImageFile(split, label, parts[-1], where, content.read())

    def _opened(self, raw: BinaryIO) -> tarfile.TarFile:
        try:
            return open_tar(raw)
        except READ_ERRORS as error:
            if is_compressed(raw):
                problem = "is not a whole tar archive (compressed, and cut off, damaged or of something else)"
            else:
                problem = "is not a tar archive"
            raise bad_data(self._path, problem, LAYOUT) from error


def _checked_parts(member: tarfile.TarInfo, where: str) -> tuple[str, ...] | None:
    """The parts of a member's name; None for what is passed over."""
    parts = tuple(part for part in member.name.split("/") if part not in ("", "."))
    if member.name.startswith("/") or ".." in parts:
        raise bad_data(where, "leads out of the tar", "make the tar anew, with plain relative names")
    if not (member.isfile() or member.isdir()):
        raise bad_data(where, "is a link or a device", "make the tar anew, of files and folders alone")
    return None if not parts or any(is_litter(part) for part in parts) else parts
