"""What a person's file is, by its first bytes and by its name: what can be read of it, and what it is called.

Content comes first: a ZIP archive that is called photos.tar is a ZIP archive. A few kilobytes are read, of regular
files alone, so neither a large file nor a pipe keeps anybody waiting.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import lzma
import os
import stat
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Gives = Literal["images", "one image", "text", "table", ""]
"""What a source can be made of it; empty: nothing that m1d reads."""

TARS = (".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.lzma")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".jp2", ".avif", ".ico", ".tga")
TEXT_SUFFIXES = (".txt", ".md", ".py", ".rst", ".tex", ".html", ".xml", ".js", ".ts", ".c", ".h", ".cpp", ".rs", ".go")
_LITTER = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    *("__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "system volume information", "lost+found"),
    "__pycache__",
}
# What lies beside pictures without being one, where its name has no ending.
_NOTES = ("readme", "license", "licence", "copying", "authors", "changelog", "makefile")
_PEEKED_BYTES = 4096
_TABLE_LINES = 5


@dataclass(frozen=True)
class FileKind:
    """A kind of file."""

    words: str
    """In a sentence: "a CSV table"."""
    way_out: str
    """What to do where something else is wanted."""
    gives: Gives = ""
    is_text: bool = False
    """Its bytes are a text as well, and may be read as one."""


_OWN_RECIPE = "use a recipe that reads it itself (docs/recipes.md)"
_UNPACK = "unpack it and name the folder"
_AS_JPEG = "export such pictures as JPEG, in a folder for each class"
_FRAMES = "export its frames as pictures, in a folder for each class"
_SAVE_AS_TEXT = "export its text as a .txt file"
_WEIGHTS = "to start from weights use --set init=PATH, where the recipe has that setting"

_TAR = FileKind("a tar archive", "choose other data, or another recipe", "images")
_ZIP = FileKind("a ZIP archive", "choose other data, or another recipe", "images")
_PICTURE = FileKind("a single picture", "name a folder that holds a folder of pictures for each class", "one image")
_TEXT = FileKind("a text file", "choose other data, or another recipe", "text", is_text=True)
_CSV = FileKind("a CSV table", _OWN_RECIPE + ", as examples/recipes/csv_regression.py does", "table", is_text=True)
_TSV = replace(_CSV, words="a TSV table")
_JSON = FileKind("a JSON file", _OWN_RECIPE, is_text=True)
_HEIC = FileKind("a HEIC picture", _AS_JPEG)
_FILM = FileKind("a film", _FRAMES)
_SOUND = FileKind("a sound file", _OWN_RECIPE)
_PDF = FileKind("a PDF", "export its text as a .txt file, or its pages as pictures")
_WORD = FileKind("a Word document", _SAVE_AS_TEXT)
_EXCEL = FileKind("an Excel workbook", "export it as CSV, and " + _OWN_RECIPE)
_NUMPY = FileKind("a NumPy array", _OWN_RECIPE)
_NUMPY_ARCHIVE = FileKind("a NumPy archive", _OWN_RECIPE)
_PARQUET = FileKind("a Parquet table", _OWN_RECIPE)
_ARROW = FileKind("an Arrow table", _OWN_RECIPE)
_HDF5 = FileKind("an HDF5 file", _OWN_RECIPE)
_SQLITE = FileKind("an SQLite database", _OWN_RECIPE)
_PICKLE = FileKind("a Python pickle", "m1d unpickles nothing: save it as pictures, text or arrays")
_TORCH = FileKind("a PyTorch file", _WEIGHTS)
_SAFETENSORS = FileKind("a safetensors file", _WEIGHTS)
_SEVEN_ZIP = FileKind("a 7-Zip archive", _UNPACK)
_RAR = FileKind("a RAR archive", _UNPACK)
_ZSTANDARD = FileKind("a Zstandard file", "unpack it, and name the folder or the tar")
_COMPRESSED = FileKind("a compressed file with no tar in it", "unpack it first")

# First bytes that are nothing else's.
_MAGIC: tuple[tuple[bytes, FileKind], ...] = (
    *((magic, _PICTURE) for magic in (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")),
    (b"%PDF-", _PDF),
    (b"PAR1", _PARQUET),
    (b"ARROW1", _ARROW),
    (b"\x89HDF\r\n", _HDF5),
    (b"SQLite format 3\0", _SQLITE),
    (b"\x93NUMPY", _NUMPY),
    (b"7z\xbc\xaf'\x1c", _SEVEN_ZIP),
    (b"Rar!\x1a\x07", _RAR),
    (b"\x28\xb5\x2f\xfd", _ZSTANDARD),
    (b"\x1aE\xdf\xa3", _FILM),
    *((magic, _SOUND) for magic in (b"ID3", b"OggS", b"fLaC")),
    *((b"\x80" + bytes([version]), _PICKLE) for version in (2, 3, 4, 5)),
)
# Of an ISO media file: what its brand says, where it is no film.
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")
_ENDINGS: Mapping[str, FileKind] = {
    **dict.fromkeys(TARS, _TAR),
    **dict.fromkeys(PICTURES, _PICTURE),
    **dict.fromkeys(TEXT_SUFFIXES, _TEXT),
    ".zip": _ZIP,
    ".csv": _CSV,
    ".tsv": _TSV,
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), _JSON),
    **dict.fromkeys((".heic", ".heif"), _HEIC),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm"), _FILM),
    **dict.fromkeys((".mp3", ".wav", ".flac", ".ogg", ".m4a"), _SOUND),
    ".pdf": _PDF,
    **dict.fromkeys((".docx", ".doc", ".odt"), _WORD),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), _EXCEL),
    ".npy": _NUMPY,
    ".npz": _NUMPY_ARCHIVE,
    ".parquet": _PARQUET,
    **dict.fromkeys((".arrow", ".feather"), _ARROW),
    **dict.fromkeys((".h5", ".hdf5"), _HDF5),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3"), _SQLITE),
    **dict.fromkeys((".pkl", ".pickle"), _PICKLE),
    **dict.fromkeys((".pt", ".pth", ".ckpt"), _TORCH),
    ".safetensors": _SAFETENSORS,
    ".7z": _SEVEN_ZIP,
    ".rar": _RAR,
    ".zst": _ZSTANDARD,
}
# Beside these, an ending is no picture's: a camera's notes on a picture, settings, logs.
_OTHER_NOTES = (
    ".yaml",
    ".yml",
    ".toml",
    ".ini",
    ".cfg",
    ".log",
    ".aae",
    ".xmp",
    ".url",
    ".sh",
    ".ipynb",
    ".bib",
    ".mat",
)


_TEXTS = (_TEXT, _CSV, _TSV, _JSON)
_DECOMPRESSORS = (
    (b"\x1f\x8b", lambda: zlib.decompressobj(31)),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\0", lzma.LZMADecompressor),
)


def suffix_of(path: str) -> str:
    """How a file's name ends, in small letters: ".csv"."""
    return os.path.splitext(path)[1].lower()


def is_litter(part: str) -> bool:
    """Return True if a file's or folder's name is to be passed over: systems and file managers leave such behind."""
    return part.startswith(".") or part.endswith("~") or part.lower() in _LITTER


def is_no_picture(name: str) -> bool:
    """Return True if a file that lies among pictures is none, by its name: a readme, a table of labels, a film."""
    stem, suffix = os.path.splitext(name.lower())
    if suffix in _OTHER_NOTES or (not suffix and stem in _NOTES):
        return True
    kind = _ENDINGS.get(suffix)
    return kind is not None and kind not in (_PICTURE, _HEIC)


def kind_by_name(name: str) -> FileKind | None:
    """The kind that a file's name says it is; None where it says nothing."""
    lower = name.lower()
    if lower.endswith(TARS):
        return _TAR
    return _ENDINGS.get(suffix_of(name))


def kind_of_file(path: str) -> FileKind | None:
    """The kind of a file; None for one that is empty, no regular file, not readable, or not known.

    Reads from the disk: call it in a thread.
    """
    start, by_name = _start(path), kind_by_name(path)
    if not start:
        return None
    found = kind_of_bytes(start) or _kind_of_compressed(start)
    if found is not None:
        return found
    if not _is_text(start):
        # Old tars and some pictures have no mark: who reads them can tell.
        is_called_text = by_name in _TEXTS
        return (_TEXT if b"\0" not in start else None) if is_called_text else by_name
    return by_name if by_name in _TEXTS else _kind_of_text(start.decode(errors="ignore"))


def _start(path: str) -> bytes:
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(fd, _PEEKED_BYTES) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        finally:
            os.close(fd)
    return b""


def kind_of_bytes(start: bytes) -> FileKind | None:
    """The kind that a file's first bytes are the mark of; None for a text, and for what has no mark."""
    for magic, kind in _MAGIC:
        if start.startswith(magic):
            return kind
    if _is_tar(start):
        return _TAR
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _kind_of_zip(start)
    if start[4:8] == b"ftyp":
        return _HEIC if start[8:12] in HEIC_BRANDS else _PICTURE if start[8:12] in _AVIF_BRANDS else _FILM
    if start[:4] == b"RIFF":
        return {b"WEBP": _PICTURE, b"WAVE": _SOUND, b"AVI ": _FILM}.get(start[8:12])
    if start[:2] == b"BM" and start[6:10] == bytes(4):
        return _PICTURE
    header_bytes = int.from_bytes(start[:8], "little")
    return _SAFETENSORS if 2 <= header_bytes < 1 << 40 and start[8:9] == b"{" else None


def _is_tar(start: bytes) -> bool:
    return start[257:262] == b"ustar"


def _kind_of_zip(start: bytes) -> FileKind:
    """By the first file's name, which says what other formats keep in a ZIP archive."""
    name = start[30 : 30 + int.from_bytes(start[26:28], "little")]
    if name in (b"[Content_Types].xml", b"_rels/.rels", b"mimetype"):
        return _EXCEL if b"xl/" in start or b"spreadsheet" in start else _WORD
    if name.endswith(b".npy"):
        return _NUMPY_ARCHIVE
    return _TORCH if name.endswith((b"/data.pkl", b"/.format_version")) else _ZIP


def _kind_of_compressed(start: bytes) -> FileKind | None:
    for magic, make in _DECOMPRESSORS:
        if start.startswith(magic):
            try:
                inside = make().decompress(start, _PEEKED_BYTES)
            except (OSError, EOFError, zlib.error, lzma.LZMAError):
                return _COMPRESSED
            # The first block of a bzip2 file is longer than what was looked at: reading it tells.
            return _TAR if _is_tar(inside) else _COMPRESSED if inside else None
    return None


def _is_text(start: bytes) -> bool:
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return b"\0" not in start


def _kind_of_text(text: str) -> FileKind:
    if text.lstrip()[:1] in ("{", "["):
        return _JSON
    lines = text.splitlines()[:_TABLE_LINES]
    for separator in ",\t;":
        if len(lines) > 1 and lines[0].count(separator) and len({line.count(separator) for line in lines}) == 1:
            return _CSV
    return _TEXT
