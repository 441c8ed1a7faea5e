"""How labelled images lie in a folder or an archive: `<split>/<class>/<image>`, or `<class>/<image>` without a split.

A split is called train, test or val, or by a word that means one of them, in any capitals. Where there is no test
split, the one for validation is taken as it; where there is neither, the engine sets a part of train apart. What lies
among the images and is none by its name (a readme, a table of labels) is passed over and counted.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from m1.errors import M1Error
from m1.file_kinds import is_litter, is_no_picture
from m1.units import counted

from m1train.data.decode import bad_data, shown

LAYOUT = "it takes <class>/<image>, or <split>/<class>/<image> with the splits train, test and val"
IN_CLOUD = ".icloud"
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
}


def split_of(name: str) -> str | None:
    """The split that a folder's name means: "train", "test" or "val"; None for any other name."""
    return _SPLITS.get(name.lower())


def resolved_splits(found: Iterable[str], where: object) -> dict[str, str]:
    """What each split that was found is in the dataset: "train", "test" or "val".

    Raises:
        M1Error: BAD_DATA, where there is no train.
    """
    splits = set(found)
    if "train" not in splits:
        raise bad_data(where, 'has no split "train"', LAYOUT)
    return {split: "test" if split == "val" and "test" not in splits else split for split in splits}


def check_splits(names: Sequence[str], where: object) -> None:
    """Refuse two folders that are the same split.

    Raises:
        M1Error: BAD_DATA.
    """
    by_split: dict[str, str] = {}
    for name in names:
        other = by_split.setdefault(split_of(name) or "", name)
        if other != name:
            problem = f'has the folders "{shown(other)}" and "{shown(name)}", which are one split'
            raise bad_data(where, problem, "put the images of both into one of them")


def notes_on_splits(found: Sequence[str]) -> list[str]:
    """What is to be said of the splits' names, as they were found."""
    means = resolved_splits([split_of(name) or "" for name in found], "") if found else {}
    said = []
    for name in found:
        meant = means[split_of(name) or ""]
        if name.lower() != meant:
            said.append(f'the folder "{shown(name)}" is taken as the {_SAID[meant]} split')
    return said


_SAID = {"train": "training", "test": "test", "val": "validation"}


def unknown_split(name: str, where: object) -> M1Error:
    """The error for a folder that is beside splits and is none."""
    return bad_data(
        where,
        f'has a folder "{shown(name)}" beside its splits, and only train, test and val are known',
        "rename it to the split that it is, or name a folder without it",
    )


def is_in_cloud(name: str) -> bool:
    """Return True for what stands for a file that is not on this machine: ".photo.jpg.icloud"."""
    return name.startswith(".") and name.lower().endswith(IN_CLOUD)


class Remarks:
    """What is to be said of a source: what is left out, and what is taken as something else, as it is come upon."""

    def __init__(self) -> None:
        self._in_cloud = self._no_pictures = 0
        self._first = ""
        self._spellings: dict[str, str] = {}
        self._spelt_twice: dict[str, None] = {}

    def takes(self, name: str) -> bool:
        """Return True for a file that is not to be read as an image, having counted it unless it is litter."""
        if is_litter(name):
            self._in_cloud += is_in_cloud(name)
            return True
        if is_no_picture(name):
            self._first = self._first or name
            self._no_pictures += 1
            return True
        return False

    def class_of(self, name: str, where: object) -> str:
        """A class's name as it is stored: two spellings of é are one class.

        Raises:
            M1Error: BAD_DATA, for one that is not UTF-8.
        """
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise bad_data(where, "is a class whose name is not UTF-8", "rename the folder") from error
        label = unicodedata.normalize("NFC", name)
        if self._spellings.setdefault(label, name) != name:
            self._spelt_twice[label] = None
        return label

    @property
    def notes(self) -> list[str]:
        """A sentence for each kind."""
        found = notes_on_cloud(self._in_cloud)
        found += [f'two spellings of "{label}" (composed and decomposed) are one class' for label in self._spelt_twice]
        if self._no_pictures:
            words = "file that is not a picture was skipped", "files that are not pictures were skipped"
            first = "" if self._no_pictures == 1 else "the first is "
            found.append(f'{counted(self._no_pictures, *words)} ({first}"{shown(self._first)}")')
        return found


def notes_on_cloud(n: int) -> list[str]:
    """What is to be said of pictures that are not on this machine."""
    return [counted(n, "picture is not downloaded from iCloud", "pictures are not downloaded from iCloud")] if n else []
