"""Texts: a file, a folder of them, or the source of Python's own standard library.

What is stored is UTF-8. A mark of the byte order is left out; what is not UTF-8 and has no such mark is taken as
Latin-1, and a note says so.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from m1.errors import M1Error, Reason
from m1.file_kinds import TEXT_SUFFIXES, is_litter, suffix_of
from m1.units import counted

from m1train.data.decode import bad_data, shown
from m1train.data.sources.layout import is_in_cloud, notes_on_cloud, notes_on_splits, resolved_splits, split_of

_PART_BYTES = 1 << 20
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# About how much of the standard library is taken: whole modules, in the order of their names.
STDLIB_BYTES = 4_000_000
_NO_TEXTS = f"it takes files that end in {', '.join(TEXT_SUFFIXES[:4])} or the like"


@dataclass(frozen=True)
class Document:
    """A text of a source. `split` is empty where the source has no splits."""

    split: str
    path: str
    size_bytes: int
    mtime_ns: int


class Texts:
    """The source: documents in their order."""

    def __init__(
        self, description: str, documents: Sequence[Document], fingerprint: str, notes: Sequence[str] = ()
    ) -> None:
        self.description = description
        self.documents = documents
        self.fingerprint = fingerprint
        self._notes = notes
        self._latin_1: list[str] = []

    @property
    def notes(self) -> list[str]:
        """What was left out or changed, a sentence each; known when all texts have been read."""
        if not self._latin_1:
            return list(self._notes)
        words = "text was not UTF-8 and was read as Latin-1", "texts were not UTF-8 and were read as Latin-1"
        first = f' (the first is "{shown(self._latin_1[0])}")'
        return [*self._notes, counted(len(self._latin_1), *words) + first]

    def parts(self, document: Document) -> Iterator[bytes]:
        """A document's text as UTF-8, some of it at a time; no character is divided.

        Raises:
            M1Error: BAD_DATA, for what is not a text.
        """
        try:
            with open(document.path, "rb") as file:
                start = file.read(4)
                mark, encoding = next((found for found in _MARKS if start.startswith(found[0])), (b"", "utf-8"))
                if not mark and not _is_utf_8(document.path):
                    self._latin_1.append(document.path)
                    encoding = "latin-1"
                file.seek(len(mark))
                decoder = codecs.getincrementaldecoder(encoding)()
                while part := file.read(_PART_BYTES):
                    text = decoder.decode(part)
                    if "\0" in text:
                        raise bad_data(
                            document.path, "is not a text: it has zero bytes", "remove it, or store it as UTF-8"
                        )
                    yield text.encode()
                decoder.decode(b"", final=True)
        except UnicodeError as error:
            raise bad_data(document.path, f"is not a text in {encoding} ({error})", "store it as UTF-8") from error
        except OSError as error:
            raise bad_data(document.path, f"cannot be read ({error.strerror})") from error


def texts_in(path: Path) -> Texts:
    """The text in a file, or every text in a folder and below it, in the order of their paths.

    Raises:
        M1Error: BAD_DATA, where there is none.
    """
    try:
        documents, notes = _listed(path) if path.is_dir() else ([_document("", str(path))], [])
    except OSError as error:
        raise bad_data(error.filename or path, f"cannot be read ({error.strerror})") from error
    documents = [document for document in documents if document.size_bytes]
    if not documents:
        raise bad_data(path, "holds no text" if path.is_dir() else "is empty (0 bytes)", _NO_TEXTS)
    listing = "\n".join(f"{os.path.relpath(d.path, path)}\0{d.size_bytes}\0{d.mtime_ns}" for d in documents)
    return Texts(str(path), documents, hashlib.sha256(os.fsencode(f"{path}\n{listing}")).hexdigest(), notes)


def stdlib() -> Texts:
    """The source text of Python's own standard library: its modules by name, up to about 4 MB.

    Raises:
        M1Error: UNSUPPORTED, where this Python's library is not there as source.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    chosen, size = [], 0
    for path in sorted(folder.glob("*.py")):
        size += path.stat().st_size
        if size > STDLIB_BYTES:
            break
        chosen.append(path)
    if not chosen:
        message = f'this Python has no source of its standard library in "{folder}"'
        raise M1Error(Reason.UNSUPPORTED, message, "name a text file or a folder of texts", field="data")
    digest = hashlib.sha256()
    for path in chosen:
        digest.update(path.read_bytes())
    documents = [_document("", str(path)) for path in chosen]
    return Texts("the source of Python's own standard library", documents, digest.hexdigest())


def _listed(folder: Path) -> tuple[list[Document], list[str]]:
    paths, others, in_cloud = [], 0, 0
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_litter(name)]
        in_cloud += sum(is_in_cloud(name) for name in files)
        wanted = [name for name in files if not is_litter(name)]
        texts = [os.path.join(root, name) for name in wanted if suffix_of(name) in TEXT_SUFFIXES]
        paths += texts
        others += len(wanted) - len(texts)
    notes = notes_on_cloud(in_cloud)
    if others:
        words = "file that is not a text was skipped", "files that are not texts were skipped"
        notes.append(counted(others, *words))
    tops = {path: os.path.relpath(path, folder).split(os.sep)[0] for path in sorted(paths, key=_parts)}
    named = sorted({top for top in tops.values() if split_of(top) and (folder / top).is_dir()})
    found = {split_of(name) or "" for name in named}
    if "train" not in found or len(found) == 1:  # a folder that happens to be called "test", or no test
        return [_document("", path) for path in tops], notes
    resolved = resolved_splits(found, folder)
    documents = []
    for path, top in tops.items():
        split = split_of(top)
        if top not in named or split is None:
            raise bad_data(path, "is neither in train nor in test", "put it into one of them, or remove it")
        documents.append(_document(resolved[split], path))
    return documents, notes_on_splits(named) + notes


def _parts(path: str) -> list[str]:
    return path.split(os.sep)


def _document(split: str, path: str) -> Document:
    facts = os.stat(path)
    return Document(split, path, facts.st_size, facts.st_mtime_ns)


def _is_utf_8(path: str) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with open(path, "rb") as file:
            while part := file.read(_PART_BYTES):
                decoder.decode(part)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
