"""CIFAR-10 as its authors publish it: a tar of pickles, downloaded or imported.

The pickles are the one exception to "nothing is ever unpickled", and a narrow one: the archive's MD5 must be the known
one before it is opened, and the unpickler knows numpy's arrays and nothing else.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from m1.datasets import CachedDataset
from m1.durable import out_of_space
from m1.errors import M1Error, Reason
from PIL import Image

from m1train.data.decode import SQUEEZED_TO_32, Sample, bad_data
from m1train.data.fit import Fit
from m1train.data.network import PROXY_HINT, reason
from m1train.data.progress import Progress
from m1train.data.scratch import scratch_directory
from m1train.data.sources.tar import READ_ERRORS, TarHeaderError, open_tar

# torchvision.datasets.CIFAR10 (url, tgz_md5); a test holds them against it. Importing torchvision would import torch.
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"
_FOLDER = "cifar-10-batches-py"
CLASSES, TRAIN_IMAGES, TEST_IMAGES = 10, 50_000, 10_000
_TIMEOUT_S = 30
_HINT = "import a file you have with m1ctl data import cifar10 PATH, or use --data digits"
_ARRAYS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class Cifar10:
    """The source that downloads. The archive is gone again when the cache has its images."""

    description = URL
    fingerprint = MD5
    notes: Sequence[str] = ()

    def __init__(self, download_directory: Path, url: str = URL) -> None:
        self._directory = download_directory
        self._url = url

    def samples(self, progress: Progress, fit: Fit = SQUEEZED_TO_32) -> Iterator[Sample]:
        """Download, check, read; progress is in bytes, then in images.

        Raises:
            M1Error: DOWNLOAD_FAILED.
        """
        with scratch_directory(self._directory, "download") as folder:
            archive = folder / "cifar-10-python.tar.gz"
            _download(self._url, archive, progress)
            yield from archive_samples(archive, progress, fit)


def _download(url: str, path: Path, progress: Progress) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    done = 0
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer, open(path, "xb") as file:  # noqa: S310 - our URL
            total = int(answer.headers.get("Content-Length") or 0)
            while chunk := answer.read(1 << 18):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                progress("download", done, total)
    except OSError as error:  # URLError and timeouts are OSErrors
        if out_of_space(error):
            raise
        raise _download_failed(reason(url, error), f"{PROXY_HINT}; else {_HINT}") from error
    if total and done != total:
        raise _download_failed(f"it ended after {done} of {total} bytes")
    if digest.hexdigest() != MD5:
        raise _download_failed(f"what came has the MD5 {digest.hexdigest()} and not {MD5}")


def _download_failed(why: str, hint: str = _HINT) -> M1Error:
    message = f"CIFAR-10 could not be downloaded ({why})"
    return M1Error(Reason.DOWNLOAD_FAILED, message, hint, field="data", value="cifar10")


def is_archive(path: Path) -> bool:
    """Whether a tar is CIFAR-10 as its authors publish it, by the names of its first members."""
    try:
        with open(path, "rb") as raw, open_tar(raw) as tar:
            first = tar.next()
            return first is not None and first.name.split("/")[0] == _FOLDER
    except (*READ_ERRORS, TarHeaderError):
        return False  # whatever it is, it is not this


def check_archive(path: Path) -> None:
    """Refuse an archive of another content.

    Raises:
        M1Error: BAD_DATA.
    """
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != MD5:
        raise bad_data(path, f"has the MD5 {found} and not CIFAR-10's {MD5}", "download it again")


def check_shape(dataset: CachedDataset) -> None:
    """Refuse to call CIFAR-10 what has not its numbers of classes and images.

    Raises:
        M1Error: BAD_DATA.
    """
    train, test = dataset.rows["train"], dataset.rows.get("test", 0)
    if (len(dataset.classes), train, test) != (CLASSES, TRAIN_IMAGES, TEST_IMAGES):
        raise bad_data(
            dataset.source,
            f"is not CIFAR-10: it has {len(dataset.classes)} classes, {train:,} training and "
            f"{test:,} test images, and not {CLASSES}, {TRAIN_IMAGES:,} and {TEST_IMAGES:,}",
            "choose another name",
        )


def archive_samples(path: Path, progress: Progress, fit: Fit = SQUEEZED_TO_32) -> Iterator[Sample]:
    """The images of an archive that has been checked."""
    done = 0
    with tarfile.open(path) as tar:
        names = [name.decode() for name in _unpickled(tar, "batches.meta")[b"label_names"]]
        for batch in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
            content = _unpickled(tar, batch)
            images = content[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            split = "test" if batch == "test_batch" else "train"
            for pixels, label, name in zip(images, content[b"labels"], content[b"filenames"], strict=True):
                square = np.asarray(fit.square(Image.fromarray(np.ascontiguousarray(pixels))), np.uint8)
                yield Sample(split, names[label], f"{batch}/{name.decode()}", square)
                done += 1
                progress("read", done, TRAIN_IMAGES + TEST_IMAGES)


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of an array")
        return super().find_class(module, name)


def _unpickled(tar: tarfile.TarFile, name: str) -> dict[bytes, Any]:
    member = tar.extractfile(f"{_FOLDER}/{name}")
    assert member is not None
    content = _ArrayUnpickler(io.BytesIO(member.read()), encoding="bytes").load()
    assert isinstance(content, dict)
    return content
