"""What an archive holds, whatever its form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

What = Literal["file", "folder", "link", "other"]


@dataclass(frozen=True)
class Member:
    """A file, a folder, or what is neither, in an archive."""

    name: str
    """With slashes, as the archive has it."""
    what: What
    size_bytes: int
    """Of a file when it is unpacked, as the archive claims; negative for a claim that cannot be."""
    read: Callable[[], bytes]
    """Unpacks a file; what comes is no longer than it claims."""
