"""torchvision's own weights: downloaded once into a cache, and checked by the hash that their file's name ends with.

The addresses are torchvision's. The download is the training process's: the network, the proxy and the certificates
are those of the daemon's environment.
"""

from __future__ import annotations

import hashlib
import os
import re
import urllib.request
from http.client import HTTPException
from pathlib import Path

from m1.durable import out_of_space, sync, sync_directory
from m1.errors import M1Error, Reason
from m1.units import format_bytes

from m1train.data.network import PROXY_HINT, reason
from m1train.data.scratch import scratch_directory
from m1train.recipes.photos.weights import MAX_BYTES

# "resnet18-f37072fd.pth": the name, and the first eight digits of the file's SHA-256.
_FILE = re.compile(r"[A-Za-z0-9_.]+-([0-9a-f]{8})\.pth")
_TIMEOUT_S = 30
_PIECE_BYTES = 1 << 18


def address(network: str) -> str:
    """Where torchvision keeps its own best weights of a network."""
    from torchvision import models

    return str(models.get_model_weights(network).DEFAULT.url)


def cached(url: str, directory: Path) -> Path:
    """The file of an address, from the cache, or downloaded into it.

    Args:
        url: Its last part names the hash.
        directory: The cache.

    Raises:
        M1Error: DOWNLOAD_FAILED, DISK_FULL. Nothing half-made remains.
    """
    name = url.rpartition("/")[2]
    named = _FILE.fullmatch(name)
    assert named, f"{url} names no hash"
    path = directory / name
    if path.is_file() and _hash(path).startswith(named[1]):
        return path
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with scratch_directory(directory, "download") as folder:
            _download(url, folder / name)
            found = _hash(folder / name)
            if not found.startswith(named[1]):
                raise _failed(name, directory, f"what came has the SHA-256 {found[:8]}... and not {named[1]}...")
            os.replace(folder / name, path)
            sync_directory(directory)
    except OSError as error:
        if out_of_space(error):
            hint = "free some space and retry the job"
            raise M1Error(Reason.DISK_FULL, f'the disk of "{directory}" is full', hint) from error
        raise _failed(name, directory, str(error)) from error
    return path


def _download(url: str, path: Path) -> None:
    name = path.name
    done = 0
    with open(path, "xb") as file:
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - torchvision's address
                total = int(answer.headers.get("Content-Length") or 0)
                while piece := answer.read(_PIECE_BYTES):
                    done += len(piece)
                    if done > MAX_BYTES:
                        raise _failed(name, path.parent.parent, f"it has more than {format_bytes(MAX_BYTES)}")
                    file.write(piece)
        except (OSError, HTTPException) as error:  # URLError and timeouts are OSErrors
            if out_of_space(error):
                raise
            raise _failed(name, path.parent.parent, reason(url, error), f"{PROXY_HINT}; else ") from error
        if total and done != total:
            raise _failed(name, path.parent.parent, f"it ended after {done} of {total} bytes")
        file.flush()
        sync(file.fileno())


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _failed(name: str, directory: Path, why: str, first: str = "") -> M1Error:
    return M1Error(
        Reason.DOWNLOAD_FAILED,
        f"torchvision's weights {name} could not be downloaded ({why})",
        f"{first}give a file that you have with --set init=/path/to/{name}, or put it into {directory}",
        field="settings.init",
        value="torchvision",
    )
