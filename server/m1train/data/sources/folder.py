"""A folder of `<split>/<class>/<image>`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from m1train.data.decode import ImageFile, Progress, Sample, bad_data, check_size, check_split, decoded, is_litter

_LAYOUT = "a data set is a folder of <split>/<class>/<image> with the splits train and test"


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
        try:
            self._files = list(_listed(path))
        except OSError as error:
            raise bad_data(error.filename or path, f"cannot be read ({error.strerror})") from error
        listing = "\n".join(f"{os.path.relpath(f.path, path)}\0{f.size_bytes}\0{f.mtime_ns}" for f in self._files)
        self.fingerprint = hashlib.sha256(os.fsencode(f"{path}\n{listing}")).hexdigest()

    def samples(self, progress: Progress) -> Iterator[Sample]:
        """Every image, in the order of the names; progress is in images."""
        for done, sample in enumerate(decoded(self._contents()), 1):
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


def _listed(root: Path) -> Iterator[_Listed]:
    splits = _entries(root)
    if not splits:
        raise bad_data(root, "is empty", _LAYOUT)
    for split in splits:
        if not split.is_dir():
            raise bad_data(split.path, "is not in a class's folder", _LAYOUT)
        check_split(split.name, root)
        classes = _entries(split)
        if not classes:
            raise bad_data(split.path, "is empty", _LAYOUT)
        for label in classes:
            if not label.is_dir():
                raise bad_data(label.path, "is not in a class's folder", _LAYOUT)
            images = _entries(label)
            if not images:
                raise bad_data(label.path, "is a class without an image", "add images or remove the folder")
            for image in images:
                if not image.is_file():
                    raise bad_data(image.path, "is not a file", _LAYOUT)
                facts = image.stat()
                yield _Listed(split.name, label.name, image.path, facts.st_size, facts.st_mtime_ns)


def _entries(folder: Path | os.DirEntry[str]) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        return sorted((entry for entry in found if not is_litter(entry.name)), key=lambda entry: entry.name)
