"""A tar, of any compression that tarfile reads, of `<split>/<class>/<image>` below any number of leading folders.

It is read as a stream and never unpacked to the disk. Links, devices and names that lead out of the tar are refused
all the same: a tar that has them is not what it says.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from m1train.data.decode import (
    SPLITS,
    ImageFile,
    Progress,
    Sample,
    bad_data,
    check_size,
    check_split,
    decoded,
    is_litter,
)
from m1train.data.sources import cifar10
from m1train.data.sources.tar import READ_ERRORS, TarHeaderError, is_compressed, open_tar

_LAYOUT = "a data set's tar holds <split>/<class>/<image> with the splits train and test"


class Archive:
    """The source."""

    def __init__(self, path: Path) -> None:
        """Look at the file's size and time.

        Raises:
            M1Error: BAD_DATA, for an empty or unreadable file.
        """
        self._path = path
        self.description = str(path)
        try:
            facts = path.stat()
        except OSError as error:
            raise bad_data(path, f"cannot be read ({error.strerror})") from error
        if not facts.st_size:
            raise bad_data(path, "is empty (0 bytes)", "name a folder or a tar of <split>/<class>/<image>")
        identity = os.fsencode(f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}")
        self.fingerprint = hashlib.sha256(identity).hexdigest()

    def samples(self, progress: Progress) -> Iterator[Sample]:
        """Every image, in the tar's order; progress is in images, of a number that is known at the end."""
        if cifar10.is_archive(self._path):
            cifar10.check_archive(self._path)
            yield from cifar10.archive_samples(self._path, progress)
            return
        done = 0
        for done, sample in enumerate(decoded(self._files()), 1):
            yield sample
            progress("read", done, 0)
        progress("read", done, done)

    def _files(self) -> Iterator[ImageFile]:
        classes: set[tuple[str, ...]] = set()
        filled: set[tuple[str, ...]] = set()
        seen: set[tuple[str, ...]] = set()
        try:
            with open(self._path, "rb") as raw, self._opened(raw) as tar:
                for member in tar:
                    where = f"{self._path}:{member.name}"
                    check_size(min(member.size, 0), where)  # one below zero would lead tarfile back, whatever it is
                    parts = _checked_parts(member, where)
                    if parts is None:
                        continue
                    if member.isdir():
                        classes.add(parts)
                        continue
                    if len(parts) < 3 or (parts[-3] not in SPLITS and parts[-2] in SPLITS):
                        raise bad_data(where, "is not in a class's folder", _LAYOUT)
                    check_split(parts[-3], where)
                    check_size(member.size, where)
                    if parts in seen:
                        raise bad_data(where, "stands twice in the tar", "make the tar anew, with each image once")
                    seen.add(parts)
                    filled.add(parts[:-1])
                    if len({folder[:-2] for folder in filled}) > 1:
                        raise bad_data(where, "belongs to a second data set in the same tar", _LAYOUT)
                    content = tar.extractfile(member)
                    assert content is not None  # only a regular file gets here
                    yield ImageFile(parts[-3], parts[-2], parts[-1], where, content.read())
        except TarHeaderError as error:
            raise bad_data(self._path, f"is not a whole tar ({error})", _LAYOUT) from error
        except READ_ERRORS as error:
            raise bad_data(self._path, f"is not a whole tar ({error or type(error).__name__})", _LAYOUT) from error
        except MemoryError as error:
            raise bad_data(self._path, "asks for more memory than there is", "make the tar anew") from error
        if not filled:
            raise bad_data(self._path, "holds no images", _LAYOUT)
        depth = len(next(iter(filled)))
        for folder in sorted(classes - filled):
            if len(folder) == depth:
                where = f"{self._path}:{'/'.join(folder)}"
                raise bad_data(where, "is a class without an image", "add images or remove the folder")

    def _opened(self, raw: BinaryIO) -> tarfile.TarFile:
        try:
            return open_tar(raw)
        except READ_ERRORS as error:
            if is_compressed(raw):
                problem = "is not a whole tar archive (compressed, and cut off, damaged or of something else)"
            else:
                problem = "is not a tar archive"
            raise bad_data(self._path, problem, _LAYOUT) from error


def _checked_parts(member: tarfile.TarInfo, where: str) -> tuple[str, ...] | None:
    """The parts of a member's name; None for what is passed over."""
    parts = tuple(part for part in member.name.split("/") if part not in ("", "."))
    if member.name.startswith("/") or ".." in parts:
        raise bad_data(where, "leads out of the tar", "make the tar anew, with plain relative names")
    if not (member.isfile() or member.isdir()):
        raise bad_data(where, "is a link or a device", "make the tar anew, of files and folders alone")
    return None if not parts or any(is_litter(part) for part in parts) else parts
