"""`m1train run`: one attempt at the job of a directory; what the daemon starts."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from m1.errors import ExitCode, M1Error, Reason
from m1.jobdir import Spec, read_spec
from m1.journal import Exited, JournalWriter, journal_path
from m1.process.lock import hold_lock


def run_directory(directory: str, attempt: int | None) -> int:
    """Run one attempt at a job; 0 unless it failed."""
    path = Path(os.path.abspath(directory))
    if not path.is_dir():
        raise M1Error(Reason.INVALID_ARGUMENT, f'"{path}" is not a job\'s directory', field="directory")
    lock = hold_lock(path)
    try:
        exited = attempt_at(path, _spec(path), attempt)
        # The daemon reads in the journal how it ended; to have yielded or stopped as it was asked is no error.
        return ExitCode.ERROR if exited.outcome == "failed" else ExitCode.OK
    finally:
        os.close(lock)


def attempt_at(path: Path, spec: Spec, attempt: int | None) -> Exited:
    """Run an attempt, the next one where none is named; how it ended."""
    from m1train.attempt.run import run_attempt

    # stderr is the job's log.
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    number = attempt if attempt is not None else next_attempt(path)
    try:
        journal = JournalWriter(journal_path(path, number))
    except FileExistsError as error:
        message = f"attempt {number} of this job has been made"
        raise M1Error(Reason.WRONG_STATE, message, field="attempt", value=str(number)) from error
    return run_attempt(path, spec, journal)


def _spec(path: Path) -> Spec:
    try:
        return read_spec(path)
    except (OSError, ValueError) as error:
        raise M1Error(Reason.INVALID_ARGUMENT, f'"{path}" is not a job\'s directory ({error})') from error


def next_attempt(path: Path) -> int:
    """Give the number of the next attempt."""
    number = 1
    while journal_path(path, number).exists():
        number += 1
    return number
