"""Writing tensors in the safetensors format straight from their memory.

The library makes the whole file in memory first and holds the interpreter meanwhile, so a training beside it would
stand for seconds when the model is large. Here each tensor is written and hashed where it lies, by calls that let other
threads go on. The bytes are those that the library writes; it reads them.
Format: https://huggingface.co/docs/safetensors: the header's length in 8 bytes, the header in JSON, the tensors.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from m1.durable import sync
from torch import Tensor

NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What can be written, and what the format calls it."""
# The library's order: the wider types first, so that every tensor lies aligned; then by name.
_ORDER = ("I64", "F64", "F32", "I32", "BF16", "F16", "I16", "I8", "U8", "BOOL")
_PIECE_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Written:
    """What a manifest says of a file."""

    size_bytes: int
    sha256: str


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> Written:
    """Write a new file of contiguous CPU tensors, and sync it; the caller syncs the directory.

    Raises:
        OSError: it could not be written.
    """
    digest, size = hashlib.sha256(), 0
    with open(path, "xb") as file:
        for piece in _pieces(tensors):
            file.write(piece)
            digest.update(piece)
            size += len(piece)
        file.flush()
        sync(file.fileno())
    return Written(size, digest.hexdigest())


def _pieces(tensors: dict[str, Tensor]) -> Iterator[bytes | memoryview]:
    names = sorted(tensors, key=lambda name: (_ORDER.index(NAMES[tensors[name].dtype]), name))
    header, end = {}, 0
    for name in names:
        tensor = tensors[name]
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for name in names:
        if tensors[name].numel():
            content = tensors[name].reshape(-1).view(torch.uint8).numpy().data
            yield from (content[i : i + _PIECE_BYTES] for i in range(0, len(content), _PIECE_BYTES))
