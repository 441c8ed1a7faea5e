"""Training processes that live without a job: of a database that was deleted or replaced under a daemon.

They are found by their locks at the daemon's start, asked to make a checkpoint and go, as in a pause; if they don't, to
stop as in a cancel; and then killed. Nothing else trains until they have gone. What they have trained stays in their
directories.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

import psutil
from m1.jobdir import Desired, Want, write_desired
from m1.limits import JOB_ID
from m1.paths import Home

from m1d.processes.leftovers import NO_SESSION, marked
from m1d.processes.training import is_training

_log = logging.getLogger(__name__)

GRACE_S = {Want.YIELD: 120.0, Want.STOP: 20.0}
"""For a step and a checkpoint; and to go as it is."""
_JOURNAL = "journal-"


class LeftBehind:
    """Those of one home. Used from the event loop's thread."""

    def __init__(self, home: Home, known: Collection[str], monotonic: Callable[[], float]) -> None:
        """Find the processes of all jobs but the known ones, by id."""
        self._monotonic = monotonic
        there = (path for path in home.jobs.iterdir() if JOB_ID.fullmatch(path.name) and path.name not in known)
        self._asked: dict[Path, tuple[Want, float]] = {
            path: (Want.RUN, 0.0) for path in sorted(there) if is_training(path)
        }
        """What each was asked for last, and until when that has time."""

    def see_off(self) -> bool:
        """Take the next step, and return True while one lives.

        Raises:
            OSError: the disk refuses; the next turn tries again.
        """
        for directory, (want, until_s) in list(self._asked.items()):
            if not is_training(directory):
                _log.info('the process in "%s" has gone', directory)
                del self._asked[directory]
            elif want is Want.RUN:
                self._ask(directory, Want.YIELD)
                _log.warning(
                    'a training process lives in "%s", and the database knows of no such job that runs: it was asked to'
                    ' make a checkpoint and go; m1ctl submit RECIPE --from DIR begins with one of "%s"',
                    directory,
                    directory / "checkpoints",
                )
            elif self._monotonic() >= until_s:
                if want is Want.STOP:
                    _kill(directory)
                self._ask(directory, Want.STOP)
        return bool(self._asked)

    def _ask(self, directory: Path, want: Want) -> None:
        write_desired(directory, Desired(want))
        self._asked[directory] = want, self._monotonic() + GRACE_S[want]


def last_attempt(directory: Path) -> int:
    """The number of the newest attempt that has a journal; 0 where there is none."""
    numbers = [path.name.removeprefix(_JOURNAL) for path in directory.glob(f"{_JOURNAL}*")]
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def _kill(directory: Path) -> None:
    for process in marked(str(directory), NO_SESSION):
        _log.warning('process %d does not leave "%s": killing it', process.pid, directory)
        with suppress(psutil.Error):
            process.kill()
