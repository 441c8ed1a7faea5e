"""What follows when a training process has ended: a pure decision on what the job knows and how the process ended.

The retry policy. An attempt that failed and had made a checkpoint newer than the one it began with is simply
continued; one that had not counts, and when more of them in a row have failed than the job's `retries`, the job fails.
What would fail again is not tried: bad data, what is not installed, a checkpoint that does not fit, and a number that
is not finite at the step where it was not finite before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from m1.errors import Reason
from m1.jobdir import Want

from m1d.jobs.job import Job, JobError
from m1d.jobs.states import JobState

_WORTH_ANOTHER_TRY = {
    Reason.PROCESS_DIED.value,
    Reason.OUT_OF_MEMORY.value,
    Reason.DISK_FULL.value,
    Reason.DOWNLOAD_FAILED.value,
    Reason.NOT_FINITE.value,
    Reason.INTERNAL.value,
}


@dataclass(frozen=True)
class Ending:
    """How a training process ended, apart from what it said itself."""

    words: str
    """As in "killed by SIGKILL" and "exit status 1"; empty when it was not this daemon's child."""
    watched: bool
    """This daemon started the attempt and was there all the time."""
    oom: bool
    """The system has killed some process for want of memory since the attempt began."""


@dataclass(frozen=True)
class Move:
    """A change of state that follows, and what changes with it."""

    state: JobState
    reason: str
    changes: Mapping[str, Any] = field(default_factory=dict)


def settle(job: Job, ending: Ending, newest_step: int, head: int) -> Sequence[Move]:
    """The moves, in order. `newest_step` is that of the newest checkpoint, `head` the first position of the line."""
    moves = _moves(job, ending, newest_step, head)
    if job.want == Want.HOLD and moves[-1].state == JobState.QUEUED:
        # A job that somebody holds does not train by itself after its process has died.
        held = replace(moves[-1], changes={**moves[-1].changes, "want": Want.HOLD})
        return [*moves[:-1], held]
    return moves


def _moves(job: Job, ending: Ending, newest_step: int, head: int) -> Sequence[Move]:
    said = job.exited
    if said and said.outcome == "succeeded":
        return [Move(JobState.SUCCEEDED, "trained to the end")]
    if job.want == Want.STOP:
        return [Move(JobState.CANCELLED, "cancelled")]
    if said and said.outcome == "stopped":
        return [Move(JobState.CANCELLED, "cancelled by hand")]
    if said and said.outcome == "yielded":
        return _yielded(job, head)
    return _failed(job, ending, newest_step, head)


def _yielded(job: Job, head: int) -> Sequence[Move]:
    if job.state == JobState.YIELDING:
        return [Move(JobState.PAUSED, "parked: the daemon stopped" if job.parked else "paused")]
    # Nobody asked through us: the process got SIGTERM, because the machine goes down or somebody typed kill.
    why = "its training process was asked to end (SIGTERM)"
    return [Move(JobState.YIELDING, why), Move(JobState.PAUSED, why), _queued(why, head)]


def _failed(job: Job, ending: Ending, newest_step: int, head: int) -> Sequence[Move]:
    error = _error(job, ending)
    if job.state == JobState.YIELDING and not job.exited:
        why = f"paused, but {error.message}: it will go on from its newest checkpoint"
        return [Move(JobState.PAUSED, why)]
    if not job.exited and not ending.watched:
        # It died with its daemon, or while none was there: a power cut is nobody's failure.
        return [_queued(error.message, head)]
    failures = 0 if newest_step > job.begun_at_step else job.failures + 1
    not_finite = job.exited.step if job.exited and error.code == Reason.NOT_FINITE.value else None
    again = not_finite is not None and not_finite == job.not_finite_step
    if error.code not in _WORTH_ANOTHER_TRY or again or failures > job.retries:
        return [Move(JobState.FAILED, error.message, {"error": error, "failures": failures})]
    counted = (
        f"failure {failures} of at most {job.retries} in a row" if failures else "not counted: it had made progress"
    )
    why = f"attempt {job.attempt} ended with {error.code} ({error.message}); {counted}"
    moves = [_queued(why, head, failures=failures, not_finite_step=not_finite)]
    if job.state == JobState.YIELDING:  # it could not write its checkpoint: it is not wanted to train now
        return [Move(JobState.PAUSED, why, {"failures": failures})]
    return moves


def _queued(reason: str, head: int, **changes: Any) -> Move:
    return Move(JobState.QUEUED, reason, {"position": head, "parked": False, **changes})


def _error(job: Job, ending: Ending) -> JobError:
    if job.exited:
        return JobError(job.exited.code, job.exited.message, job.exited.hint)
    if ending.oom and ending.words == "killed by SIGKILL":
        return JobError(
            Reason.OUT_OF_MEMORY.value,
            "its training process was killed for want of memory",
            "take a smaller batch_size, or close something large",
        )
    hint = f"m1ctl logs {job.name} has its last words; m1ctl retry {job.name} goes on from its newest checkpoint"
    how = ending.words or "unseen by this daemon"
    return JobError(Reason.PROCESS_DIED.value, f"its training process ended without a word ({how})", hint)
