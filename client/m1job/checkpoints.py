"""A program's checkpoints: files of its own, with a manifest of their hashes, complete or not there at all.

    checkpoints/step-00000352/
        ...              what the program wrote
        manifest.json    {"format": 1, "files": {name: {"size": ..., "sha256": ...}}}; written last

A checkpoint is written under a temporary name, synced, and appears by one rename.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MANIFEST = "manifest.json"
MOST_FILES = 256
_TEMPORARY = ".tmp-"
_CHUNK_BYTES = 2**20


class DamagedError(Exception):
    """A checkpoint that is not what was written."""


def checkpoint_path(root: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return root / f"step-{step:08d}"


def steps(root: Path) -> list[int]:
    """The steps of the checkpoints that there are, ascending."""
    names = [path.name[len("step-") :] for path in root.glob("step-*") if path.is_dir()]
    return sorted(int(name) for name in names if name.isdecimal())


def write(root: Path, step: int, fill: Callable[[Path], Any]) -> tuple[Path, int, str]:
    """Write a checkpoint: `fill` puts files into a directory. Durable on return.

    Returns:
        Its directory, its size in bytes, and the SHA-256 of its manifest, which stands for all of it.

    Raises:
        OSError, and whatever `fill` raises: nothing remains of it.
        ValueError: `fill` wrote nothing, or what is no plain file.
    """
    root.mkdir(mode=0o700, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=str(root)))
    try:
        fill(temporary)
        files = _files(temporary)
        if not files:
            raise ValueError(f"the checkpoint of step {step} has no files")
        if len(files) > MOST_FILES:
            raise ValueError(f"{len(files)} files are too many for a checkpoint: put them into {MOST_FILES} at most")
        if MANIFEST in files:
            raise ValueError(f"a checkpoint's own {MANIFEST} is m1job's to write: choose another name")
        entries = {name: _hashed(path) for name, path in sorted(files.items())}
        content = json.dumps({"format": 1, "files": entries}, indent=1).encode()
        with open(temporary / MANIFEST, "xb") as file:
            file.write(content)
            file.flush()
            _sync(file.fileno())
        for folder in {path.parent for path in files.values()} | {temporary}:
            _sync_directory(folder)
        target = checkpoint_path(root, step)
        if target.exists():
            remove(root, step)
        os.rename(str(temporary), str(target))
    except BaseException:
        shutil.rmtree(str(temporary), ignore_errors=True)
        raise
    _sync_directory(root)
    size = len(content) + sum(entry["size"] for entry in entries.values())
    return target, size, hashlib.sha256(content).hexdigest()


def verify(path: Path) -> None:
    """Compare a checkpoint with its manifest.

    Raises:
        DamagedError: they differ.
        OSError: it cannot be read.
    """
    try:
        entries: dict[str, dict[str, Any]] = json.loads((path / MANIFEST).read_bytes())["files"]
        files = _files(path)
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"its {MANIFEST} is not one ({error})") from error
    for name, entry in entries.items():
        if name not in files:
            raise DamagedError(f"{name} is missing")
        if _hashed(files[name]) != entry:
            raise DamagedError(f"{name} is not what was written")


def set_aside(root: Path, step: int) -> str:
    """Put a damaged checkpoint out of the way; its new name."""
    path = checkpoint_path(root, step)
    aside = Path(tempfile.mkdtemp(prefix=f"damaged-{path.name}-", dir=str(root)))
    os.rename(str(path), str(aside))
    return aside.name


def remove(root: Path, step: int) -> None:
    """Remove a checkpoint so that no half of it is ever seen under its name."""
    doomed = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=str(root)))
    os.rename(str(checkpoint_path(root, step)), str(doomed / "removed"))
    shutil.rmtree(str(doomed))


def remove_temporary(root: Path) -> None:
    """Remove what a killed attempt was writing."""
    for path in root.glob(_TEMPORARY + "*"):
        shutil.rmtree(str(path))


def _files(directory: Path) -> dict[str, Path]:
    """Every file below a directory but the manifest of `path` itself, by its name with "/"."""
    found = {}
    for folder, folders, names in os.walk(str(directory)):
        for name in names + [each for each in folders if os.path.islink(os.path.join(folder, each))]:
            path = Path(folder, name)
            if path.is_symlink() or not path.is_file():
                raise ValueError(f"{path.relative_to(directory)} is no plain file")
            found[path.relative_to(directory).as_posix()] = path
    return found


def _hashed(path: Path) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""):
            digest.update(chunk)
            size += len(chunk)
        _sync(file.fileno())
    return {"size": size, "sha256": digest.hexdigest()}


def _sync(fd: int) -> None:
    import fcntl

    full = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: fsync leaves it in the drive's cache
    if full is None:
        os.fsync(fd)
    else:
        fcntl.fcntl(fd, full)


def _sync_directory(path: Path) -> None:
    fd = os.open(str(path), os.O_RDONLY)
    try:
        _sync(fd)
    finally:
        os.close(fd)
