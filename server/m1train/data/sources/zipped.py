"""Reading a ZIP archive that somebody else made, file by file; nothing is unpacked to the disk."""

from __future__ import annotations

import lzma
import stat
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

from m1train.data.sources.member import Member, What

# RuntimeError and NotImplementedError: for passwords and for methods of compression that zipfile has not.
READ_ERRORS = (
    zipfile.BadZipFile,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    lzma.LZMAError,
    zlib.error,
)
_ENCRYPTED, _UTF_8 = 0x1, 0x800
_DOS = 0


def is_zip(raw: BinaryIO) -> bool:
    """Return True if a file that stands at its beginning, and does so afterwards, begins as a ZIP archive does."""
    start = raw.read(4)
    raw.seek(0)
    return start in (b"PK\x03\x04", b"PK\x05\x06")


def members(raw: BinaryIO) -> Iterator[Member]:
    """Everything in a ZIP archive, in the order of its directory.

    Raises:
        One of READ_ERRORS: for what is no whole ZIP archive, or is encrypted.
    """
    with zipfile.ZipFile(raw) as archive:
        for info in archive.infolist():
            yield Member(_name(info), _what(info), info.file_size, partial(_content, archive, info))


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.flag_bits & _ENCRYPTED:
        raise RuntimeError("it has a password")
    return archive.read(info)


def _name(info: zipfile.ZipInfo) -> str:
    """The name in UTF-8, which Macs write without saying so, and with slashes, where old Windows wrote the others."""
    name = info.filename
    if not info.flag_bits & _UTF_8:
        try:
            name = name.encode("cp437").decode()
        except UnicodeError:
            name = info.filename
    return name.replace("\\", "/") if info.create_system == _DOS else name


def _what(info: zipfile.ZipInfo) -> What:
    if info.is_dir():
        return "folder"
    kind = stat.S_IFMT(info.external_attr >> 16)
    return "link" if kind == stat.S_IFLNK else "file" if kind in (0, stat.S_IFREG) else "other"
