"""A fault of the machine, by which no job can be started: said once, and waited for.

It fails no job. What was to be started stays QUEUED; every now and then it is tried whether a process can be started
again, ever more seldom, and the first job goes on when one can.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from m1.errors import M1Error, Reason

from m1d.jobs.job import Job
from m1d.processes.environment import training_environment
from m1d.processes.spawn import NOT_RUN, why_not
from m1d.processes.training import try_command

# Between two tries: as long as this at first, twice as long each time, and at last this long.
_FIRST_S, _LAST_S = 2.0, 30.0


def is_suspect(job: Job, ending: str) -> bool:
    """Return True if a job's process may have ended because nothing of its kind can run here, by how it did."""
    said = job.attempt.exited
    if said is not None:
        return said.code == Reason.TORCH_MISSING.value
    return job.attempt.journal_offset == 0 and ending in {f"exit status {status}" for status in NOT_RUN}


class Fault:
    """What is wrong with the machine, as far as it is known."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.words = ""
        """Empty while nothing is known to be wrong."""
        self._said = ""
        self._delay_s = _FIRST_S
        self._next = 0.0
        self._looking: asyncio.Future[M1Error | None] | None = None

    async def look(self, job: Job, environment: Mapping[str, str]) -> M1Error | None:
        """Try whether a process like this job's can run here; the fault, or None, also for a look that was ended."""
        command = try_command(program=job.kind == "program")
        self._looking = asyncio.ensure_future(why_not(command, training_environment(environment, 1)))
        try:
            await asyncio.wait([self._looking])
            return None if self._looking.cancelled() else self._looking.result()
        finally:
            self._looking = None

    def look_no_longer(self) -> None:
        """End a look that is under way."""
        if self._looking:
            self._looking.cancel()

    def met(self, words: str) -> bool:
        """Note what was met, and when to look again; True if it was not said before."""
        news, self.words, self._said = words != self._said, words, words
        self._next = self._monotonic() + self._delay_s
        self._delay_s = min(2 * self._delay_s, _LAST_S)
        return news

    def left_s(self) -> float:
        """How long to wait before it is looked at again."""
        return max(0.0, self._next - self._monotonic())

    def lifted(self) -> None:
        """Note that it can be tried again; whether it works the next start shows."""
        self.words = ""

    def mended(self) -> None:
        """Note that a process was started: whatever comes is news."""
        self.words = self._said = ""
        self._delay_s = _FIRST_S
