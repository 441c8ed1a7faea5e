"""The journal as the training uses it: it cannot fail, so that a full disk stops no training.

The rule. A record that is good for its moment only (a phase, the training metrics of a step) is tried once; when it
cannot be written it is lost, and how many metrics were lost is said in a notice as soon as writing works again. Every
other record is owed: it is kept in memory and written, in order, before anything after it. What is owed is tried again
with every further record and whenever the loop looks after what the daemon wants, and at the end the process stays
until all of it is written, or until it is told to go. A record that is larger than any reader takes is left out, and
that is said; of the last one the sentences are shortened. What an attempt that is killed then still owes, the next one
says anew from the newest checkpoint.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from m1.errors import shortened
from m1.journal import Exited, JournalWriter, Metrics, Notice, Phase, Record, RecordTooLargeError
from m1.limits import SENTENCE_CHARACTERS

log = logging.getLogger(__name__)


class Journal:
    """Appends records, now or later; from any thread."""

    def __init__(self, writer: JournalWriter) -> None:
        self._writer = writer
        self._lock = threading.Lock()
        self._owed: deque[Record] = deque()
        self._lost: list[int] = []
        """How many metrics records, the first step and the last; empty when none was lost."""
        self._problem: OSError | None = None

    def append(self, record: Record) -> None:
        """Write a record, after all that is owed; when that fails, owe it or lose it, by the rule."""
        with self._lock:
            if self._settle() and self._tried(record):
                return
            if not _of_its_moment(record):
                self._owed.append(record)
            elif isinstance(record, Metrics):
                count, first, _ = self._lost or (0, record.step, 0)
                self._lost = [count + 1, first, record.step]

    def appended(self, record: Record) -> bool:
        """Write a record now or not at all, and say which."""
        with self._lock:
            return self._settle() and self._tried(record)

    def settle(self) -> bool:
        """Try to write what is owed, and say whether nothing is."""
        with self._lock:
            return self._settle()

    def leave(self, exited: Exited, stay: Callable[[], bool]) -> None:
        """Write the last record and close. While it cannot be written, `stay` waits a moment and says whether to."""
        self.append(exited)
        while not self.settle() and stay():
            pass
        if self._owed:
            log.error("left with %d records of the journal not written", len(self._owed))
        try:
            self._writer.close()
        except OSError as error:
            log.error("the journal could not be synced (%s)", error)

    def _settle(self) -> bool:
        while self._owed:
            if not self._tried(self._owed[0]):
                return False
            self._owed.popleft()
        if self._lost:
            count, first, last = self._lost
            what = "1 step" if count == 1 else f"{count} steps"
            message = f"the journal could not be written ({self._problem}): the metrics of {what} are lost"
            if not self._tried(Notice("warning", f"{message}, from step {first} to step {last}")):
                return False
            self._lost = []
        self._problem = None
        return True

    def _tried(self, record: Record) -> bool:
        try:
            try:
                self._writer.append(record)
            except RecordTooLargeError as error:
                log.warning("%s", error)
                self._writer.append(_in_its_place(record, error))
        except OSError as error:
            if self._problem is None:
                log.warning("the journal cannot be written (%s): the training goes on", error)
            self._problem = error
            return False
        return True


def _in_its_place(record: Record, error: RecordTooLargeError) -> Record:
    """What is written where a record is too large."""
    if isinstance(record, Exited):
        message, hint = (shortened(text, SENTENCE_CHARACTERS) for text in (record.message, record.hint))
        return replace(record, message=message, hint=hint)
    return Notice("warning", f"{error}: it was left out")


def _of_its_moment(record: Record) -> bool:
    if isinstance(record, Metrics):
        return all(key.startswith("train/") for key in record.values)
    return isinstance(record, Phase)
