"""Opening a tar that somebody else made: no header makes this process read more than a header may be."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO, Self

from m1train.data.sources.member import Member, What

# Names and extended headers are read whole by tarfile; the longest path that a system takes has 4 KiB.
MAX_HEADER_BYTES = 1 << 20
# ValueError: for numbers and names in extended headers that are none.
READ_ERRORS = (tarfile.TarError, EOFError, OSError, ValueError, lzma.LZMAError, zlib.error)
_HEADERS_WITH_CONTENT = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x5d\0\0")  # gzip, bzip2, xz, lzma


class TarHeaderError(Exception):
    """A header that claims what no header is; says which and what."""


class _CheckedHeader(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        # A negative size would lead tarfile back to where it has been (CVE-2025-8194).
        if header.size < 0 or (header.type in _HEADERS_WITH_CONTENT and header.size > MAX_HEADER_BYTES):
            raise TarHeaderError(f'the header "{header.name}" claims {header.size:,} bytes')
        return header


def open_tar(raw: BinaryIO) -> tarfile.TarFile:
    """A tar of any compression.

    Raises:
        TarHeaderError: for a first header that claims too much; later ones raise it when they are come to.
        One of READ_ERRORS: for what is not a tar.
    """
    return tarfile.open(fileobj=raw, tarinfo=_CheckedHeader)


def members(tar: tarfile.TarFile) -> Iterator[Member]:
    """Everything in a tar, in its order; a file can be read until the next member is come to.

    Raises:
        TarHeaderError, or one of READ_ERRORS.
    """
    for member in tar:
        yield Member(member.name, _what(member), member.size, partial(_content, tar, member))


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = tar.extractfile(member)
    assert content is not None  # it is a file
    return content.read()


def _what(member: tarfile.TarInfo) -> What:
    if member.isfile():
        return "file"
    if member.isdir():
        return "folder"
    return "link" if member.issym() or member.islnk() else "other"


def is_compressed(raw: BinaryIO) -> bool:
    """Whether a file begins as those of a compression do that tarfile reads."""
    raw.seek(0)
    return raw.read(8).startswith(_COMPRESSED)
