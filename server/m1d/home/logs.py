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
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path

MAX_BYTES = 5_000_000
BACKUPS = 3
MOST_A_MINUTE = 30
"""Records of one place."""
_MINUTE_S = 60.0
_MOST_PLACES = 1000


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


class Thinning(logging.Filter):
    """Lets no kind of warning or error flood the log: of one place so many a minute, then how many were left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}
        """By logger, level and unformatted message: when its minute began, and how many there were in it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True if the record is written."""
        if record.levelno < logging.WARNING:
            return True
        now, place = self._clock(), (record.name, record.levelno, str(record.msg))
        began_s, count = self._seen.get(place, (now, 0))
        if now - began_s >= _MINUTE_S:
            left_out = count - MOST_A_MINUTE
            began_s, count = now, 0
            if left_out > 0:
                record.msg = f"{record.getMessage()} ({left_out} more like it were left out)"
                record.args = None
        if place not in self._seen and len(self._seen) >= _MOST_PLACES:
            self._seen.clear()
        self._seen[place] = began_s, count + 1
        return count < MOST_A_MINUTE


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
        handler.addFilter(Thinning())
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
