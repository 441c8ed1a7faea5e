"""Weights to begin with: a file of tensors, read safely, and what of it fits a network.

A file is read once, whole, so that what is hashed is what is taken. Its format is found by its content: safetensors, or
what torch.save wrote, of which nothing but tensors and plain containers is unpickled (`weights_only`).
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from m1.errors import M1Error, Reason, shortened
from m1.units import format_bytes
from torch import Tensor, nn

# Several times the largest of our networks with an optimizer's state; read into memory as a whole.
MAX_BYTES = 2**30
# Where a training script keeps the tensors, when it stores more than those.
_WRAPPERS = ("state_dict", "model", "model_state_dict")
# What torch's data-parallel wrappers put before every name.
_PREFIX = "module."
_FORMATS = "it takes safetensors, or tensors by name as torch.save stores them (a state_dict)"
_MOST_NAMES = 3


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and where they come from."""

    source: str
    """A path, or an address."""
    sha256: str
    """Of the whole file."""
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class Taken:
    """What a network took of a file."""

    source: str
    sha256: str
    taken: int
    tensors: int
    """All that the network has."""
    head_before: int | None
    """How many classes the file's head tells apart; None: it has none for this network."""
    head: int
    missing: tuple[str, ...]
    """What else was not taken, by name."""

    @property
    def sentence(self) -> str:
        """For a person: "120 of 122 tensors are taken from w.pth (SHA-256 ...); the head is new: 1000 → 5 classes"."""
        before = f"{self.head_before} → " if self.head_before is not None else ""
        names = ", ".join(self.missing[:_MOST_NAMES])
        more = f" and {len(self.missing) - _MOST_NAMES} more" if len(self.missing) > _MOST_NAMES else ""
        missing = f"; new as well: {names}{more}" if names else ""
        return (
            f"{self.taken} of {self.tensors} tensors are taken from {os.path.basename(self.source)} "
            f"(SHA-256 {self.sha256[:12]}); the head is new: {before}{self.head} classes{missing}"
        )


def read_weights(path: str) -> Weights:
    """Read a file.

    Raises:
        M1Error: FILE_NOT_FOUND; INVALID_SETTING for what is no file, is too large, or has no format that we know.
    """
    content = _content(path)
    return Weights(path, hashlib.sha256(content).hexdigest(), _tensors(content, path))


def take(model: nn.Module, weights: Weights, network: str, head: str) -> Taken:
    """Copy every tensor whose name and shape the network has, but its head's, which stays as it is.

    Args:
        model: The network; changed in place.
        weights: The file's.
        network: What it is called in a sentence.
        head: The path of its last layer.

    Raises:
        M1Error: INVALID_SETTING, when no parameter fits, or a number in the file is not finite. Nothing is changed.
    """
    present, tensors = model.state_dict(), weights.tensors
    backbone = {name: tensor for name, tensor in present.items() if not name.startswith(f"{head}.")}
    fitting = {name: tensors[name] for name, tensor in backbone.items() if _fits(tensors.get(name), tensor)}
    if not any(name in fitting for name, _ in model.named_parameters()):
        raise _refused(
            weights.source,
            f"has no tensor that fits {network} (it has {_listed(tensors)})",
            "choose the network that it is of with --set network=",
        )
    broken = next((name for name, tensor in fitting.items() if not bool(tensor.isfinite().all())), None)
    if broken:
        raise _refused(weights.source, f'has a number in "{broken}" that is not finite', "take another file")
    for name, tensor in fitting.items():
        backbone[name].copy_(tensor)
    old = tensors.get(f"{head}.weight")
    return Taken(
        weights.source,
        weights.sha256,
        len(fitting),
        len(present),
        len(old) if old is not None and old.ndim == 2 else None,
        len(present[f"{head}.weight"]),
        tuple(name for name in backbone if name not in fitting),
    )


def _fits(stored: Tensor | None, wanted: Tensor) -> bool:
    if stored is None or stored.shape != wanted.shape or stored.layout is not torch.strided or stored.is_quantized:
        return False
    return stored.is_floating_point() == wanted.is_floating_point() and not stored.is_complex()


def _content(path: str) -> bytes:
    try:
        # Not blocking: a pipe is refused, and not waited for.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise _refused(path, "is not a file", "give the path of one")
            if status.st_size > MAX_BYTES:
                problem = f"has {format_bytes(status.st_size)}, and {format_bytes(MAX_BYTES)} are read at most"
                raise _refused(path, problem, "store the weights alone")
            with open(fd, "rb", closefd=False) as file:
                return file.read(MAX_BYTES)
        finally:
            os.close(fd)
    except FileNotFoundError:
        message = f'the file init="{shortened(path)}" is not there'
        hint = "give the path of a file on the computer that trains"
        raise M1Error(Reason.FILE_NOT_FOUND, message, hint, field="settings.init", value=path) from None
    except (OSError, ValueError) as error:  # a path with a NUL in it is a ValueError
        raise _refused(path, f"cannot be read ({error})", "give the path of a file that can be") from error


def _tensors(content: bytes, path: str) -> Mapping[str, Tensor]:
    """The tensors by name, without wrappers around them."""
    try:
        if content[8:9] == b"{":  # behind the length of the header, which is JSON
            from safetensors.torch import load

            stored: object = load(content)
        else:
            _check_unpacked(content, path)
            stored = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except M1Error:
        raise
    except Exception as error:  # a damaged file can raise anything in either library
        raise _refused(path, f"cannot be read as weights ({_first_line(error)})", _FORMATS) from error
    for name in _WRAPPERS:
        if isinstance(stored, Mapping) and isinstance(stored.get(name), Mapping):
            stored = stored[name]
    if not isinstance(stored, Mapping) or not any(isinstance(value, Tensor) for value in stored.values()):
        raise _refused(path, "holds no tensors by name", _FORMATS)
    return {
        str(name).removeprefix(_PREFIX): value.detach() for name, value in stored.items() if isinstance(value, Tensor)
    }


def _check_unpacked(content: bytes, path: str) -> None:
    """Refuse an archive that would become larger than a file may be."""
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > MAX_BYTES:
            problem = f"has {format_bytes(unpacked)} unpacked, and {format_bytes(MAX_BYTES)} are read at most"
            raise _refused(path, problem, "store the weights alone")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return shortened(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)


def _listed(tensors: Mapping[str, Tensor]) -> str:
    names = sorted(tensors)
    some = ", ".join(shortened(name, 60) for name in names[:_MOST_NAMES])
    return some if len(names) <= _MOST_NAMES else f"{some} and {len(names) - _MOST_NAMES} more"


def _refused(path: str, problem: str, hint: str) -> M1Error:
    message = f'the file init="{shortened(path)}" {problem}'
    return M1Error(Reason.INVALID_SETTING, message, hint, field="settings.init", value=path)
