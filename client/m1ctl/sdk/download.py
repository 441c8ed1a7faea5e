"""Receiving a checkpoint: into a temporary directory beside the target, verified, then renamed."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from m1.durable import sync, sync_directory
from m1.errors import M1Error, Reason
from m1.v1.checkpoint_pb2 import Checkpoint, DownloadCheckpointResponse

_WEIGHTS, _MANIFEST = "weights.safetensors", "manifest.json"


def receive(
    checkpoint: Checkpoint,
    chunks: Iterator[DownloadCheckpointResponse],
    directory: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the streamed files and publish them as `directory`; on any failure nothing is left.

    Raises:
        M1Error: INVALID_ARGUMENT for the directory; BAD_CHECKPOINT for a file that is short, misnamed or altered.
    """
    directory = directory.expanduser().absolute()
    if directory.exists() or directory.is_symlink():
        raise _bad_directory(directory, "already exists", "name a new one")
    if not directory.parent.is_dir():
        raise _bad_directory(directory, "cannot be created", f'create "{directory.parent}" first')
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        hashes = _write_files(checkpoint, chunks, temporary, on_progress)
        # What stands for the whole: the weights, or the manifest of what a program has saved.
        name = _WEIGHTS if _WEIGHTS in hashes else _MANIFEST
        if hashes.get(name) != checkpoint.weights_sha256:
            told = f"{name} has SHA-256 {hashes[name]}" if name in hashes else f"{_WEIGHTS} is missing"
            raise _damaged(checkpoint, told)
        for folder in {temporary, *(temporary / name for name in hashes for name in _folders(name))}:
            sync_directory(folder)
        os.rename(temporary, directory)
    except BaseException:
        shutil.rmtree(temporary)
        raise
    sync_directory(directory.parent)


def _write_files(
    checkpoint: Checkpoint,
    chunks: Iterator[DownloadCheckpointResponse],
    temporary: Path,
    on_progress: Callable[[int, int], None] | None,
) -> dict[str, str]:
    """Write each file in turn; the SHA-256 of each, by its name."""
    done_bytes = 0
    digests: dict[str, hashlib._Hash] = {}
    file: IO[bytes] | None = None
    name, size_bytes = "", 0
    try:
        for chunk in chunks:
            if file is None or chunk.file != name:
                _close(checkpoint, file, name, size_bytes)
                file = None
                name, size_bytes = _file_name(checkpoint, chunk.file), chunk.file_size_bytes
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                file = open(temporary / name, "xb")  # noqa: SIM115 - open across chunks
                digests[name] = hashlib.sha256()
            file.write(chunk.chunk)
            digests[name].update(chunk.chunk)
            done_bytes += len(chunk.chunk)
            if on_progress:
                on_progress(done_bytes, checkpoint.size_bytes)
        _close(checkpoint, file, name, size_bytes)
        file = None
    finally:
        if file is not None:
            file.close()
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _folders(name: str) -> list[str]:
    """The folders that a file's name goes through: "a" and "a/b" of "a/b/c"."""
    return [str(folder) for folder in PurePosixPath(name).parents][:-1]


def _close(checkpoint: Checkpoint, file: IO[bytes] | None, name: str, size_bytes: int) -> None:
    if file is None:
        return
    with file:
        file.flush()
        sync(file.fileno())
        written = file.tell()
    if written != size_bytes:
        raise _damaged(checkpoint, f"{name} has {written} of {size_bytes} bytes")


def _file_name(checkpoint: Checkpoint, name: str) -> str:
    if not name or "\0" in name or any(part in {"", ".", ".."} for part in name.split("/")):
        raise _damaged(checkpoint, f'it contains a file named "{name}"')
    return name


def _damaged(checkpoint: Checkpoint, what: str) -> M1Error:
    return M1Error(
        Reason.BAD_CHECKPOINT,
        f'checkpoint "{checkpoint.id}" was damaged on the way: {what}',
        "try again, or choose another (see m1ctl checkpoints)",
        field="checkpoint",
        value=checkpoint.id,
    )


def _bad_directory(directory: Path, what: str, way_out: str) -> M1Error:
    return M1Error(
        Reason.INVALID_ARGUMENT, f'the directory "{directory}" {what}', way_out, field="directory", value=str(directory)
    )
