"""The daemon's log: one line a record, in UTC, in a file that rotates itself and is read by its owner only.

    2026-03-01T12:00:00.123Z INFO    m1d.queue: job 7 starts

The daemon rotates the file (launchd would keep a file open that something else had moved away), so at most
MAX_BYTES x (1 + BACKUPS) of the disk are taken. No line ever carries an escape sequence, so that a file, a pipe and a
terminal show the same.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
import time
from io import TextIOWrapper
from pathlib import Path

MAX_BYTES = 5_000_000
BACKUPS = 3


class LineFormatter(logging.Formatter):
    """One record, one line, and the traceback below it."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the library's name
        """The line; a line break in a message is shown as one, so that nothing can pass for another record."""
        return super().formatMessage(record).replace("\r", "\\r").replace("\n", "\\n")


class PrivateRotatingFileHandler(logging.handlers.RotatingFileHandler):
    """A rotating file with mode 0600, also after a rotation and whatever the umask."""

    def _open(self) -> TextIOWrapper:
        fd = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.fchmod(fd, 0o600)
        return open(fd, "a", encoding="utf-8")


def configure(log: Path, *, foreground: bool) -> None:
    """Send every record from INFO on to the log and, in the foreground, to stderr. A second call replaces the first.

    Raises:
        OSError: the log cannot be opened.
    """
    handlers: list[logging.Handler] = [PrivateRotatingFileHandler(log, maxBytes=MAX_BYTES, backupCount=BACKUPS)]
    if foreground:
        handlers.append(logging.StreamHandler(sys.stderr))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        handler.setFormatter(LineFormatter())
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
