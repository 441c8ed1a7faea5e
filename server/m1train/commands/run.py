"""`m1train run`: one attempt at the job of a directory; what the daemon starts."""

from __future__ import annotations

import logging
import os
import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from m1.errors import ExitCode, M1Error, Reason
from m1.job_log import Bounding
from m1.jobdir import Spec, log_path, read_spec
from m1.journal import Exited, JournalWriter, journal_path
from m1.process.lock import hold_lock

log = logging.getLogger(__name__)


def run_directory(directory: str, attempt: int | None) -> int:
    """Run one attempt at a job; 0 unless it failed."""
    path = Path(os.path.abspath(directory))
    if not path.is_dir():
        raise M1Error(Reason.INVALID_ARGUMENT, f'"{path}" is not a job\'s directory', field="directory")
    lock = hold_lock(path)
    try:
        exited = attempt_at(path, _spec(path), attempt)
        # The daemon reads in the journal how it ended; to have yielded or stopped as it was asked is no error.
        status = ExitCode.ERROR if exited.outcome == "failed" else ExitCode.OK
    finally:
        os.close(lock)
    _leave_threads_behind(status)
    return status


def _leave_threads_behind(status: int) -> None:
    """End the process where a recipe has left threads that would keep it, and the machine, for as long as they run."""
    living = [thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()]
    if not living:
        return
    log.info("not waited for: the threads %s", ", ".join(thread.name for thread in living))
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)


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
    with _small_log(path):
        return run_attempt(path, spec, journal)


def _small_log(path: Path) -> AbstractContextManager[object]:
    """Keep the job's log small, where it is what this process prints to."""
    try:
        printed, named = os.fstat(sys.stderr.fileno()), os.stat(log_path(path))
    except (OSError, ValueError):  # there is no such file, or no stderr
        return nullcontext()
    if (printed.st_dev, printed.st_ino) != (named.st_dev, named.st_ino):
        return nullcontext()
    return Bounding(log_path(path), tell=lambda problem: log.warning("%s", problem))


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
