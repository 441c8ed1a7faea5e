"""From what a job calls its data (a name or a path) and needs of them to a dataset in the cache."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from m1.columns import IMAGES_OF_32, Need, normalised, words_of
from m1.datasets import BUILT_IN, CachedDataset, cached_datasets, check_name_is_free, check_source
from m1.errors import M1Error, Reason
from m1.limits import NAME

from m1train.data.cache import build, newest, read_manifest, version
from m1train.data.columns import Stored
from m1train.data.decode import bad_data
from m1train.data.images import ImageSource, store_images
from m1train.data.progress import Progress
from m1train.data.scratch import make_private, remove_abandoned
from m1train.data.sources.archive import Archive
from m1train.data.sources.cifar10 import Cifar10, check_shape
from m1train.data.sources.digits import Digits
from m1train.data.sources.folder import Folder
from m1train.data.sources.text import Texts, stdlib, texts_in
from m1train.data.texts import store_texts

_WHAT_IS_READ = "images with a label, or text"


def prepare(
    data_root: Path,
    data: str,
    progress: Progress,
    name: str = "",
    needs: Sequence[Need] = IMAGES_OF_32,
    *,
    content_sha256: str = "",
) -> Path:
    """The cached dataset's directory, read first where the cache does not have it; with a name, imported under it.

    With `content_sha256`, that of the data that a job began with, it is that version, whatever has become of the
    source; where the cache has lost it, the source is read again, and its hash tells whether it is the same.

    Raises:
        M1Error: DATASET_NOT_FOUND, INVALID_NAME, NAME_TAKEN, INVALID_SETTING, BAD_DATA, DOWNLOAD_FAILED, DISK_FULL.
    """
    remove_abandoned(data_root)
    if content_sha256 and (begun_with := version(data_root, content_sha256)):
        return begun_with
    needs = normalised(needs)
    if {need.kind for need in needs} not in ({"image"}, {"image", "label"}, {"text"}):
        raise bad_data(data, f"cannot be read as {words_of(needs)}", f"m1d reads {_WHAT_IS_READ}")
    if name:
        _check_name(name)
    if os.path.isabs(data):
        return _from_path(data_root, data, progress, name, needs)
    check_source(data_root, data, needs)
    if name and name != data:
        raise M1Error(Reason.INVALID_ARGUMENT, f'"{data}" is a dataset already', "import takes a path", field="source")
    known = newest(data_root, data, needs)
    if known is not None:
        return known
    elsewhere = _path_of(data_root, data)
    if elsewhere:  # imported, and read for another need so far
        return _from_path(data_root, elsewhere, progress, data, needs)
    if data not in BUILT_IN:
        raise bad_data(data, "was read by another version of m1d", "import it again with m1ctl data import")
    if data == "stdlib":
        return _store(data_root, data, needs, stdlib(), progress)
    return _store(data_root, data, needs, Digits() if data == "digits" else _cifar10(data_root), progress)


def _from_path(data_root: Path, path: str, progress: Progress, name: str, needs: Sequence[Need]) -> Path:
    if name:
        check_name_is_free(data_root, name, path)
    known = newest(data_root, name or path, needs)
    if known is not None and name == "cifar10" and not _is_read_from(known, path):
        known = None  # the one name whose dataset may come from elsewhere than the last one
    if known is not None and not os.path.exists(path):
        return known  # the source is gone, and what was read of it is still here
    check_source(data_root, path, needs)

    def check(manifest: CachedDataset) -> None:
        if name == "cifar10":
            check_shape(manifest)
        if name:
            check_name_is_free(data_root, name, path)  # asked again: reading takes long

    return _store(data_root, name or path, needs, _source(Path(path), needs), progress, check)


def _source(path: Path, needs: Sequence[Need]) -> ImageSource | Texts:
    if needs[0].kind == "text":
        return texts_in(path)
    return Folder(path) if path.is_dir() else Archive(path)


def _store(
    data_root: Path,
    name: str,
    needs: Sequence[Need],
    source: ImageSource | Texts,
    progress: Progress,
    check: Callable[[CachedDataset], None] = lambda manifest: None,
) -> Path:
    def store(directory: Path) -> Stored:
        if isinstance(source, Texts):
            return store_texts(directory, source, progress)
        return store_images(directory, source, needs, progress)

    return build(data_root, name, needs, source, store, check)


def _cifar10(data_root: Path) -> Cifar10:
    make_private(data_root)
    return Cifar10(data_root)


def _path_of(data_root: Path, name: str) -> str | None:
    """Where a dataset was imported from, if that is still there."""
    found = [dataset for dataset in cached_datasets(data_root) if dataset.name == name]
    source = max(found, key=lambda dataset: dataset.create_time).source if found else ""
    return source if os.path.isabs(source) and os.path.exists(source) else None


def _is_read_from(directory: Path, path: str) -> bool:
    manifest = read_manifest(directory)
    return manifest is not None and manifest.source == str(Path(path))


def _check_name(name: str) -> None:
    if name in BUILT_IN and name != "cifar10":  # which can be imported where it cannot be downloaded
        raise M1Error(Reason.INVALID_NAME, f'"{name}" is built in', "choose another name", field="name", value=name)
    if not NAME.fullmatch(name):
        raise M1Error(
            Reason.INVALID_NAME,
            f'"{name}" is not a name for a dataset',
            "take letters, digits, dot, dash and underscore, 63 at most",
            field="name",
            value=name,
        )
