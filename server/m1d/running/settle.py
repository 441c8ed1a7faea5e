"""What follows when a training process has ended: a pure decision on what the job knows and how the process ended.

The retry policy. An attempt that failed and had made a checkpoint newer than the one it began with is simply
continued; one that had not counts, and when more of them in a row have failed than the job's `retries`, the job fails.
What would fail again is not tried: bad data, what is not installed, a checkpoint that does not fit, a number that is
not finite at the step where it was not finite before, and what fails twice at one step in the same words: training is
deterministic, so only the machine can make another attempt end otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from m1.errors import Reason
from m1.jobdir import Want

from m1d.jobs.job import Job, JobError
from m1d.jobs.states import JobState

_WORTH_ANOTHER_TRY = {
    Reason.PROCESS_DIED.value,
    Reason.PROGRAM_FAILED.value,
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
class Transition:
    """A change of state that follows, and what changes with it."""

    state: JobState
    reason: str
    error: JobError | None = None
    """Of one to FAILED."""
    want: Want = Want.RUN
    position: int | None = None
    """Of one to QUEUED: where in the line."""
    failures: int | None = None
    """None: as they were."""
    not_finite_step: int | None = None
    """Where a number was not finite; goes with `failures`."""
    failed_alike: str = ""
    """Goes with `failures`."""

    def applied(self, job: Job) -> Job:
        """Make the job with all that changes beside its state."""
        if self.position is not None:
            job = replace(job, position=self.position, wish=replace(job.wish, parked=False))
        if self.failures is not None:
            job = replace(
                job,
                failures=self.failures,
                not_finite_step=self.not_finite_step,
                failed_alike=self.failed_alike,
            )
        return job


def settle(job: Job, ending: Ending, newest_step: int, head: int) -> Sequence[Transition]:
    """Decide what follows, in order.

    Args:
        job: as it was when its process ended.
        ending: how that was.
        newest_step: of its newest checkpoint.
        head: the first position of the line.
    """
    follow = _transitions(job, ending, newest_step, head)
    if job.wish.want == Want.HOLD and follow[-1].state == JobState.QUEUED:
        # A job that somebody holds does not train by itself after its process has died.
        return [*follow[:-1], replace(follow[-1], want=Want.HOLD)]
    return follow


def _transitions(job: Job, ending: Ending, newest_step: int, head: int) -> Sequence[Transition]:
    said = job.attempt.exited
    if said and said.outcome == "succeeded":
        return [Transition(JobState.SUCCEEDED, said.message or "trained to the end")]
    if job.wish.want == Want.STOP:
        return [Transition(JobState.CANCELLED, "cancelled")]
    if said and said.outcome == "stopped":
        return [Transition(JobState.CANCELLED, "cancelled by hand")]
    if said and said.outcome == "yielded":
        return _yielded(job, head)
    return _failed(job, ending, newest_step, head)


def _yielded(job: Job, head: int) -> Sequence[Transition]:
    if job.state == JobState.YIELDING:
        return [Transition(JobState.PAUSED, "parked: the daemon stopped" if job.wish.parked else "paused")]
    # Nobody asked through us: the process got SIGTERM, because the machine goes down or somebody typed kill.
    why = "its process was asked to end (SIGTERM)"
    return [
        Transition(JobState.YIELDING, why),
        Transition(JobState.PAUSED, why),
        Transition(JobState.QUEUED, why, position=head),
    ]


def _failed(job: Job, ending: Ending, newest_step: int, head: int) -> Sequence[Transition]:
    error, exited = _error(job, ending, newest_step), job.attempt.exited
    if job.state == JobState.YIELDING and not exited:
        why = f"paused, but {error.message}: it will {_going_on(newest_step)}"
        return [Transition(JobState.PAUSED, why)]
    if not exited and not ending.watched:
        # It died with its daemon, or while none was there: a power cut is nobody's failure.
        return [Transition(JobState.QUEUED, error.message, position=head)]
    failures = 0 if newest_step > job.attempt.begun_at_step else job.failures + 1
    not_finite = exited.step if exited and error.code == Reason.NOT_FINITE.value else None
    again = not_finite is not None and not_finite == job.not_finite_step
    alike = _failed_alike(job, error, ending, newest_step)
    again = again or (alike != "" and alike == job.failed_alike)
    if error.code not in _WORTH_ANOTHER_TRY or again or failures > job.spec.retries:
        before = job.not_finite_step
        return [Transition(JobState.FAILED, error.message, error=error, failures=failures, not_finite_step=before)]
    counted = (
        f"failure {failures} of at most {job.spec.retries} in a row"
        if failures
        else "not counted: it had made progress"
    )
    why = f"attempt {job.attempt.number} ended with {error.code} ({error.message}); {counted}"
    if job.state == JobState.YIELDING:  # it could not write its checkpoint: it is not wanted to train now
        before = job.not_finite_step
        return [Transition(JobState.PAUSED, why, failures=failures, not_finite_step=before)]
    return [
        Transition(
            JobState.QUEUED,
            why,
            position=head,
            failures=failures,
            not_finite_step=not_finite,
            failed_alike=alike,
        )
    ]


def _failed_alike(job: Job, error: JobError, ending: Ending, newest_step: int) -> str:
    """Where and how it failed, for what is perhaps the program's doing; empty for what is the machine's."""
    exited = job.attempt.exited
    if exited and error.code == Reason.INTERNAL.value:
        return f"{exited.step}: {error.message}"
    if not exited and error.code == Reason.PROCESS_DIED.value and ending.words.startswith("exit status"):
        return f"{newest_step}: {ending.words}"
    return ""


def _going_on(newest_step: int) -> str:
    return "go on from its newest checkpoint" if newest_step else "begin again: it has no checkpoint"


def _error(job: Job, ending: Ending, newest_step: int) -> JobError:
    if exited := job.attempt.exited:
        if ending.oom and exited.code == Reason.PROGRAM_FAILED.value and exited.message.endswith("SIGKILL"):
            return JobError(
                Reason.OUT_OF_MEMORY.value, f"{exited.message}, for want of memory", "close something large"
            )
        return JobError(exited.code, exited.message, exited.hint)
    if ending.oom and ending.words == "killed by SIGKILL":
        return JobError(
            Reason.OUT_OF_MEMORY.value,
            "its training process was killed for want of memory",
            "take a smaller batch_size, or close something large",
        )
    again = "goes on from its newest checkpoint" if newest_step else "begins again"
    hint = f"m1ctl logs {job.name} has its last words; m1ctl retry {job.name} {again}"
    how = ending.words or "unseen by this daemon"
    if job.attempt.journal_damaged:
        told = f"its journal is damaged, so nothing is known of its end but {how}"
        return JobError(Reason.PROCESS_DIED.value, told, hint)
    return JobError(Reason.PROCESS_DIED.value, f"its training process ended without a word ({how})", hint)
