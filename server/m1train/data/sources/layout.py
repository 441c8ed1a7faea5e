"""How labelled images lie in a folder or a tar: `<split>/<class>/<image>`, or `<class>/<image>` without a split.

A split is called train, test, or val, valid or validation, in any capitals. Where there is no test, the one for
validation is taken as it; where there is neither, the engine sets a part of train apart.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from m1.errors import M1Error

from m1train.data.decode import bad_data, shown

LAYOUT = "it takes <class>/<image>, or <split>/<class>/<image> with the splits train and test"
IN_CLOUD = ".icloud"
_SPLITS = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}


def split_of(name: str) -> str | None:
    """The split that a folder's name means: "train", "test" or "val"; None for any other name."""
    return _SPLITS.get(name.lower())


def resolved_splits(found: Iterable[str], where: object) -> dict[str, str]:
    """What each split that was found is in the data set: "train" or "test".

    Raises:
        M1Error: BAD_DATA, where there is no train, or both a test and a validation split.
    """
    splits = set(found)
    if splits >= {"val", "test"}:
        raise bad_data(
            where,
            'has a split "test" and one for validation, and what validates is held out of train',
            "put what is for validation under train, or leave it out",
        )
    if "train" not in splits:
        raise bad_data(where, 'has no split "train"', LAYOUT)
    return {split: "test" if split == "val" else split for split in splits}


def notes_on_splits(found: Sequence[str]) -> list[str]:
    """What is to be said of the splits' names, as they were found."""
    return [f'the split "{name}" is taken as the test split' for name in found if split_of(name) == "val"]


def unknown_split(name: str, where: object) -> M1Error:
    """The error for a folder that is beside splits and is none."""
    return bad_data(
        where,
        f'has a split "{shown(name)}", and only train and test are known',
        "put the images under train/<class>/ and test/<class>/; validation images are held out of train",
    )


def class_of(name: str, where: object) -> str:
    """A class's name as it is stored: two spellings of é are one class.

    Raises:
        M1Error: BAD_DATA, for one that is not UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise bad_data(where, "is a class whose name is not UTF-8", "rename the folder") from error
    return unicodedata.normalize("NFC", name)


def is_in_cloud(name: str) -> bool:
    """Return True for what stands for a file that is not on this machine: ".photo.jpg.icloud"."""
    return name.startswith(".") and name.lower().endswith(IN_CLOUD)


def counted(n: int, one: str, many: str) -> str:
    """A sentence that begins with a number: "1 picture is ...", "30 pictures are ..."."""
    return f"{n:,} {one if n == 1 else many}"


def notes_on_cloud(n: int) -> list[str]:
    """What is to be said of pictures that are not on this machine."""
    return [counted(n, "picture is not downloaded from iCloud", "pictures are not downloaded from iCloud")] if n else []
