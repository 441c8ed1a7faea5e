"""Reading a dataset into a cache, as the tests of its sources do it."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from m1.columns import IMAGES_OF_32, Need, image_need
from m1.errors import M1Error
from m1train.data.cache import Dataset, open_dataset
from m1train.data.prepare import prepare


def silent(phase: str, done: int, total: int) -> None:
    """No progress."""


def read(root: Path, data: object, name: str = "", needs: Sequence[Need] = IMAGES_OF_32) -> Dataset:
    return open_dataset(prepare(root, str(data), silent, name, needs))


def refused(root: Path, data: object, name: str = "", needs: Sequence[Need] = IMAGES_OF_32) -> M1Error:
    with pytest.raises(M1Error) as raised:
        read(root, data, name, needs)
    assert not list(root.glob("*")), "nothing half-built remains"
    return raised.value


def images_of(size: int, fit: str = "squeeze", background: str = "white") -> tuple[Need, Need]:
    return image_need({"size": size, "fit": fit, "background": background}), Need("label")


TEXT = (Need("text"),)
