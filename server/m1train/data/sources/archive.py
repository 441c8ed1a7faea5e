"""A tar, of any compression that tarfile reads, or a ZIP archive, of `<split>/<class>/<image>` or `<class>/<image>`.

Both may lie below any number of leading folders; all images lie as the first one does. It is never unpacked to the
disk. Links, devices and names that lead out of the archive are refused all the same: one that has them is not what it
says.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from tarfile import TarFile
from typing import BinaryIO

from m1.errors import M1Error
from m1.file_kinds import is_litter

from m1train.data.decode import SQUEEZED_TO_32, ImageFile, Sample, bad_data, check_size, decoded
from m1train.data.fit import Fit
from m1train.data.progress import Progress
from m1train.data.sources import cifar10, tar, zipped
from m1train.data.sources.layout import (
    LAYOUT,
    Remarks,
    check_splits,
    notes_on_splits,
    split_of,
    unknown_split,
)
from m1train.data.sources.member import Member

_UNPACK = "unpack it and name the folder"


class _Layout:
    """How the images of an archive lie, as far as it has been read."""

    def __init__(self, path: Path, remarks: Remarks) -> None:
        self._path = path
        self._remarks = remarks
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
            raise bad_data(where, "belongs to a second dataset in the same archive", LAYOUT)
        if parts in self._images:
            raise bad_data(where, "stands twice in the archive", "make the archive again, with each image once")
        self._images.add(parts)
        self._filled.add(parts[:-1])
        return self._split(parts[-3]) if with_split else "train", self._remarks.class_of(parts[-2], where)

    def check_whole(self) -> None:
        """Refuse an archive without images, and a class without one."""
        if self._root is None:
            raise bad_data(self._path, "holds no images", LAYOUT)
        depth = len(self._root) + (2 if self._with_splits else 1)
        for folder in sorted(self._folders - self._filled):
            if len(folder) == depth and folder[: len(self._root)] == self._root:
                where = f"{self._path}:{'/'.join(folder)}"
                raise bad_data(where, "is a class without an image", "put images into it, or take the folder away")

    def _split(self, name: str) -> str:
        if name not in self.split_names:
            self.split_names.append(name)
            check_splits(self.split_names, self._path)
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
        self._remarks = Remarks()
        self._layout = _Layout(path, self._remarks)
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
        return notes_on_splits(self._layout.split_names) + self._remarks.notes

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
        self._remarks = Remarks()
        self._layout = _Layout(self._path, self._remarks)
        try:
            with open(self._path, "rb") as raw:
                if zipped.is_zip(raw):
                    yield from self._images(zipped.members(raw))
                else:
                    with self._opened(raw) as opened:
                        yield from self._images(tar.members(opened))
        except (tar.TarHeaderError, *tar.READ_ERRORS, *zipped.READ_ERRORS) as error:
            problem = f"cannot be read as an archive ({error or type(error).__name__})"
            raise bad_data(self._path, problem, "make it again, or unpack it and name the folder") from error
        except MemoryError as error:
            raise bad_data(self._path, "asks for more memory than there is", _UNPACK) from error
        self._layout.check_whole()

    def _images(self, members: Iterable[Member]) -> Iterator[ImageFile]:
        for member in members:
            where = f"{self._path}:{member.name}"
            check_size(min(member.size_bytes, 0), where)  # one below zero would lead tarfile back, whatever it is
            parts = _checked_parts(member, where)
            if not parts or any(is_litter(part) for part in parts[:-1]):
                continue
            if member.what == "folder":
                if not is_litter(parts[-1]):
                    self._layout.add_folder(parts)
            elif not self._remarks.takes(parts[-1]):
                split, label = self._layout.place(parts, where)
                check_size(member.size_bytes, where)
                yield ImageFile(split, label, parts[-1], where, member.read())

    def _opened(self, raw: BinaryIO) -> TarFile:
        try:
            return tar.open_tar(raw)
        except tar.READ_ERRORS as error:
            if tar.is_compressed(raw):
                problem = "is not a whole tar (compressed, and cut off, damaged or of something else)"
            else:
                problem = "is neither a folder nor an archive of images that m1d can read"
            raise bad_data(self._path, problem, LAYOUT) from error


def _checked_parts(member: Member, where: str) -> tuple[str, ...]:
    """The parts of a member's name."""
    parts = tuple(part for part in member.name.split("/") if part not in ("", "."))
    if member.name.startswith("/") or ".." in parts:
        raise bad_data(where, "leads out of the archive", "make the archive again, with plain relative names")
    if member.what == "link":
        raise bad_data(where, "is a link", _UNPACK)
    if member.what == "other":
        raise bad_data(where, "is neither a file nor a folder", "make the archive again, of files and folders alone")
    return parts
