"""Reading a data set into a cache, as the tests of its sources do it."""

from pathlib import Path

import pytest
from m1.errors import M1Error
from m1train.data.cache import Dataset, open_dataset
from m1train.data.prepare import prepare


def silent(phase: str, done: int, total: int) -> None:
    """No progress."""


def read(root: Path, data: object, name: str = "") -> Dataset:
    return open_dataset(prepare(root, str(data), silent, name))


def refused(root: Path, data: object, name: str = "") -> M1Error:
    with pytest.raises(M1Error) as raised:
        read(root, data, name)
    assert not list(root.glob("*")), "nothing half-built remains"
    return raised.value
