"""`python -m m1d.keeper DIRECTORY --attempt N`: what the daemon starts for a job that runs a program."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from m1.errors import ExitCode, M1Error
from m1.jobdir import read_spec
from m1.journal import JournalWriter, journal_path
from m1.process.control import Control
from m1.process.journal import Journal
from m1.process.lock import hold_lock

from m1d.keeper.keeper import Keeper


def main() -> int:
    """Look after one attempt; 0 unless it failed."""
    parser = argparse.ArgumentParser(prog="m1d.keeper")
    parser.add_argument("directory")
    parser.add_argument("--attempt", type=int, required=True)
    arguments = parser.parse_args()
    # stderr is the job's log.
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="m1d: %(message)s")
    directory = Path(arguments.directory)
    try:
        lock = hold_lock(directory)
        try:
            spec = read_spec(directory)
            journal = Journal(JournalWriter(journal_path(directory, arguments.attempt)))
            exited = Keeper(directory, spec, arguments.attempt, journal, Control(directory)).run()
        finally:
            os.close(lock)
    except (M1Error, OSError, ValueError) as error:
        logging.error("%s", error)
        return ExitCode.ERROR
    return ExitCode.ERROR if exited.outcome == "failed" else ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
