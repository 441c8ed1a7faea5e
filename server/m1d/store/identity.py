"""Whether the database that is open is still the one at its path.

A file that was deleted or replaced stays open, and takes commits that nobody will ever read. So its files are looked at
around every commit: by inode, and by a number of its own that stands in its head (SQLite's application_id), which a
copy of another database over it does not have. What is put back is good again.
"""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
from pathlib import Path

_log = logging.getLogger(__name__)

# https://www.sqlite.org/fileformat.html#application_id
_NUMBER_AT, _NUMBER_BYTES = 68, 4


class StoreReplacedError(sqlite3.DatabaseError):
    """The database's file was deleted or replaced while it was open; nothing is stored in it any more."""


class Identity:
    """The files of an open database."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Remember them; a database without a number of its own gets one.

        Raises:
            sqlite3.Error, OSError: it cannot be written or read.
        """
        number: int = connection.execute("PRAGMA application_id").fetchone()[0]
        if number == 0:
            number = 1 + secrets.randbelow(2**31 - 1)
            connection.execute(f"PRAGMA application_id = {number}")
        self._path = path
        self._said = ""
        # Open to the end: closing any descriptor of the file would free SQLite's locks on it.
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        # In the file's head it stands once the log is written back.
        self._numbers = {number, self._number()}
        names = (path.name, f"{path.name}-wal", f"{path.name}-shm")
        files = (path.with_name(name) for name in names)
        self._inodes = {file: file.stat().st_ino for file in files if file.exists()}

    def close(self) -> None:
        """Close what was opened; after the database."""
        os.close(self._fd)

    def check(self) -> None:
        """Refuse to go on with a database that is not at its path any more; the log says so once.

        Raises:
            StoreReplacedError: with what has become of it.
        """
        try:
            self._look()
        except StoreReplacedError as error:
            if self._said != str(error):
                _log.error("%s while it was in use: nothing is stored any more", error)
            self._said = str(error)
            raise
        self._said = ""

    def _look(self) -> None:
        for file, inode in self._inodes.items():
            try:
                now = os.stat(file).st_ino
            except (FileNotFoundError, NotADirectoryError):
                raise StoreReplacedError(f'"{file}" was deleted') from None
            if now != inode:
                raise StoreReplacedError(f'another file was put in the place of "{file}"')
        if self._number() not in self._numbers:
            raise StoreReplacedError(f'another database was written over "{self._path}"')

    def _number(self) -> int:
        return int.from_bytes(os.pread(self._fd, _NUMBER_BYTES, _NUMBER_AT), "big")
