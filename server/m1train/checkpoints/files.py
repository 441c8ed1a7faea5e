"""A checkpoint: all that a job needs to go on as if nothing had happened, as files that can be verified.

    checkpoints/step-00000352/
        weights.safetensors     parameters and buffers, nothing else: its SHA-256 depends on the weights alone
        optimizer.safetensors   the optimizer's tensors, as <parameter>.<name>
        state.json              counters, validation, the best checkpoint, the fingerprint of what affects bits, the job
        manifest.json           size and SHA-256 of the three; written last

It is written under a temporary name, synced, and appears by one rename. It is used only after every hash was found
right, and nothing of it is ever unpickled. It names the job that it was made for only for the reader: any job may go
on from it, in any home. One that does not verify is set aside as `damaged-...`, with its files.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from m1.checkpoint_state import MAX_STATE_BYTES, STATE_FILE, State, read_state
from m1.durable import sync_directory, write_file
from m1.failpoints import reach
from m1.jobdir import checkpoint_path, checkpoint_steps, checkpoints_path
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from m1train.checkpoints.tensor_file import Written, write_tensors

FORMAT = 1
_WEIGHTS, _OPTIMIZER, _STATE, _MANIFEST = "weights.safetensors", "optimizer.safetensors", STATE_FILE, "manifest.json"
_FILES = (_WEIGHTS, _OPTIMIZER, _STATE)
_TEMPORARY = ".tmp-"
_DAMAGED = "damaged-"
_MAX_JSON_BYTES = MAX_STATE_BYTES
_LEFT_FREE_BYTES = 2**20

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been written, or read and verified."""

    state: State
    size_bytes: int
    weights_sha256: str


@dataclass(frozen=True)
class Loaded:
    """A verified checkpoint with its tensors, on the CPU."""

    checkpoint: Checkpoint
    weights: Tensors
    optimizer: Tensors


class BadCheckpointError(Exception):
    """A checkpoint that does not verify; the message names the file and what is wrong."""


def write(directory: Path, state: State, weights: Tensors, optimizer: Tensors) -> Checkpoint:
    """Write a checkpoint of contiguous CPU tensors; it is durable on return.

    Raises:
        OSError: it could not be written; nothing remains of it.
    """
    parent = checkpoints_path(directory)
    reach("before.checkpoint")
    _check_room(parent, sum(tensor.nbytes for tensor in (*weights.values(), *optimizer.values())))
    temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=parent))
    try:
        written = {_WEIGHTS: write_tensors(temporary / _WEIGHTS, weights)}
        reach("after.weights")
        written[_OPTIMIZER] = write_tensors(temporary / _OPTIMIZER, optimizer)
        reach("after.optimizer")
        written[_STATE] = _write_json(temporary / _STATE, asdict(state))
        reach("before.manifest")
        files = {name: {"size": file.size_bytes, "sha256": file.sha256} for name, file in written.items()}
        written[_MANIFEST] = _write_json(temporary / _MANIFEST, {"format": FORMAT, "files": files})
        sync_directory(temporary)
        reach("before.rename")
        os.rename(temporary, checkpoint_path(directory, state.step))
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    reach("after.rename")
    sync_directory(parent)
    reach("after.checkpoint")
    return Checkpoint(state, sum(file.size_bytes for file in written.values()), written[_WEIGHTS].sha256)


def _check_room(parent: Path, size_bytes: int) -> None:
    """Refuse what does not fit before anything of it is written: the last bytes of a disk are the journal's.

    Raises:
        OSError: ENOSPC.
    """
    disk = os.statvfs(parent)
    # A file system that does not count its blocks is found to be full by writing.
    if disk.f_blocks and disk.f_bavail * disk.f_frsize < size_bytes + _LEFT_FREE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read(path: Path) -> Loaded:
    """Verify a checkpoint's directory by its hashes and read it. What is hashed is what is read.

    Raises:
        BadCheckpointError: it is not whole.
        OSError: it could not be read.
    """
    manifest = _json_object(path / _MANIFEST)
    if manifest.get("format") != FORMAT:
        raise BadCheckpointError(f"{_MANIFEST} is of the format {manifest.get('format')!r} and not {FORMAT}")
    files = manifest.get("files")
    if not isinstance(files, dict) or set(files) != set(_FILES):
        raise BadCheckpointError(f"{_MANIFEST} does not name the files {', '.join(_FILES)}")
    contents = {name: _verified(path / name, files[name]) for name in _FILES}
    try:
        weights, optimizer = load(contents[_WEIGHTS]), load(contents[_OPTIMIZER])
    except SafetensorError as error:
        raise BadCheckpointError(f"its tensors cannot be read ({error})") from error
    size = sum(len(content) for content in contents.values()) + (path / _MANIFEST).stat().st_size
    _object(contents[_STATE], _STATE)
    try:
        state = read_state(contents[_STATE])
    except ValueError as error:
        raise BadCheckpointError(f"{_STATE} is not a state ({error})") from error
    return Loaded(Checkpoint(state, size, files[_WEIGHTS]["sha256"]), weights, optimizer)


def kept(steps: list[int], keep: int, best: int | None) -> set[int]:
    """The rule of what is kept: the newest `keep`, and the best."""
    return set(sorted(steps)[-keep:]) | ({best} & set(steps) if best is not None else set())


def spare(steps: list[int], new: int, keep: int, best: int | None, *, needed: bool) -> list[int]:
    """What may go before a new checkpoint is written, where the disk has no room for both; the oldest first.

    That is what would not be kept beside the new one; for one that is needed, all but the newest and the best.
    """
    there = sorted(set(steps) - {new})
    stay = kept(there, 1, best) if needed else kept([*there, new], keep, best) | set(there[-1:])
    return [step for step in there if step not in stay]


def remove(directory: Path, step: int) -> None:
    """Remove a checkpoint so that no half of it is ever seen under its name."""
    doomed = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=checkpoints_path(directory)))
    with contextlib.suppress(FileNotFoundError):  # removed before, by a process that was killed then
        os.rename(checkpoint_path(directory, step), doomed / "removed")
    shutil.rmtree(doomed)


def set_aside(directory: Path, step: int) -> str:
    """Put a damaged checkpoint out of the way, and return its new name."""
    path = checkpoint_path(directory, step)
    for i in range(1, 1_000_000):
        aside = path.with_name(f"{_DAMAGED}{path.name}" + (f"-{i}" if i > 1 else ""))
        if not aside.exists():
            os.rename(path, aside)
            sync_directory(path.parent)
            return aside.name
    raise BadCheckpointError(f"there is no name left to set {path.name} aside")


def remove_temporary(directory: Path) -> None:
    """Remove what a killed writer left behind. Only the holder of the job's lock may."""
    for path in checkpoints_path(directory).glob(f"{_TEMPORARY}*"):
        shutil.rmtree(path)


def newest_good(directory: Path) -> Iterator[Loaded | tuple[int, BadCheckpointError]]:
    """From the newest checkpoint on: each damaged one, as (step, why), until a good one, which ends it."""
    for step in reversed(checkpoint_steps(directory)):
        try:
            loaded = read(checkpoint_path(directory, step))
            if loaded.checkpoint.state.step != step:
                raise BadCheckpointError(f"{_STATE} is of step {loaded.checkpoint.state.step}")
        except BadCheckpointError as error:
            yield step, error
            continue
        yield loaded
        return


def _verified(path: Path, declared: object) -> bytes:
    if not isinstance(declared, dict) or not isinstance(declared.get("size"), int):
        raise BadCheckpointError(f"{_MANIFEST} does not say the size of {path.name}")
    try:
        size = path.lstat().st_size
        content = path.read_bytes() if size == declared["size"] and path.is_file() else None
    except FileNotFoundError as error:
        raise BadCheckpointError(f"{path.name} is missing") from error
    if content is None:
        raise BadCheckpointError(f"{path.name} has {size} bytes and not {declared['size']}")
    if hashlib.sha256(content).hexdigest() != declared.get("sha256"):
        raise BadCheckpointError(f"the SHA-256 of {path.name} is not the one that was written")
    return content


def _json_object(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_JSON_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise BadCheckpointError(f"{path.name} is missing") from error
    return _object(content, path.name)


def _object(content: bytes, name: str) -> dict[str, Any]:
    if len(content) > _MAX_JSON_BYTES:
        raise BadCheckpointError(f"{name} is larger than any that was written")
    try:
        data = json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadCheckpointError(f"{name} is not JSON ({error})") from error
    if not isinstance(data, dict):
        raise BadCheckpointError(f"{name} is not a JSON object")
    return data


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is not a number")


def _write_json(path: Path, data: object) -> Written:
    content = json.dumps(data, indent=1, allow_nan=False).encode()
    write_file(path, content)
    return Written(len(content), hashlib.sha256(content).hexdigest())
