"""From what a job calls its data (a name or a path) to a data set in the cache."""

from __future__ import annotations

import os
import re
from pathlib import Path

from m1.datasets import BUILT_IN, CachedDataset, check_name_is_free, check_source
from m1.errors import M1Error, Reason

from m1train.data.cache import build, newest, read_manifest
from m1train.data.decode import Progress, Source, bad_data
from m1train.data.scratch import make_private, remove_abandoned
from m1train.data.sources.archive import Archive
from m1train.data.sources.cifar10 import Cifar10, check_shape
from m1train.data.sources.digits import Digits
from m1train.data.sources.folder import Folder

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def prepare(data_root: Path, data: str, progress: Progress, name: str = "") -> Path:
    """The cached data set's directory, read first where the cache does not have it; with a name, imported under it.

    Raises:
        M1Error: DATASET_NOT_FOUND, INVALID_NAME, NAME_TAKEN, BAD_DATA, DOWNLOAD_FAILED, DISK_FULL.
    """
    remove_abandoned(data_root)
    if name:
        _check_name(name)
    if os.path.isabs(data):
        if name:
            check_name_is_free(data_root, name, data)
        known = newest(data_root, name or data)
        if known is not None and name == "cifar10" and not _is_read_from(known, data):
            known = None  # the one name whose data set may come from elsewhere than the last one
        if known is not None and not os.path.exists(data):
            return known  # the source is gone, and what was read of it is still here
        check_source(data_root, data)

        def check(manifest: CachedDataset) -> None:
            if name == "cifar10":
                check_shape(manifest)
            if name:
                check_name_is_free(data_root, name, data)  # asked again: reading takes long

        return build(data_root, name or data, _from_path(Path(data)), progress, check)
    check_source(data_root, data)
    if name and name != data:
        raise M1Error(Reason.INVALID_ARGUMENT, f'"{data}" is a data set already', "import takes a path", field="source")
    known = newest(data_root, data)
    if known is not None:
        return known
    if data not in BUILT_IN:
        raise bad_data(data, "was read by another version of m1d", "import it again with m1ctl data import")
    return build(data_root, data, Digits() if data == "digits" else _cifar10(data_root), progress)


def _cifar10(data_root: Path) -> Source:
    make_private(data_root)
    return Cifar10(data_root)


def _from_path(path: Path) -> Source:
    return Folder(path) if path.is_dir() else Archive(path)


def _is_read_from(directory: Path, data: str) -> bool:
    manifest = read_manifest(directory)
    return manifest is not None and manifest.source == str(Path(data))


def _check_name(name: str) -> None:
    if name in BUILT_IN and name != "cifar10":  # which can be imported where it cannot be downloaded
        raise M1Error(Reason.INVALID_NAME, f'"{name}" is built in', "choose another name", field="name", value=name)
    if not _NAME.fullmatch(name):
        raise M1Error(
            Reason.INVALID_NAME,
            f'"{name}" is not a name for a data set',
            "take letters, digits, dot, dash and underscore, 63 at most",
            field="name",
            value=name,
        )
