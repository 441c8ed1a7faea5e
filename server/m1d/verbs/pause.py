"""Pausing a job, taking the machine from it, and resuming it."""

from __future__ import annotations

from dataclasses import replace

from m1.errors import M1Error, Reason
from m1.jobdir import Want

from m1d.events.emit import change_state
from m1d.jobs.job import Job
from m1d.jobs.states import JobState
from m1d.verbs.parts import Parts
from m1d.verbs.wishes import tell, wish, wrong_state


def pause(parts: Parts, job: Job, *, hold: bool) -> Job:
    """Ask a job to yield, or to hold.

    Raises:
        M1Error: WRONG_STATE.
    """
    if hold:
        return _hold(parts, job)
    if job.state == JobState.QUEUED:
        with parts.store.transaction() as tx:
            return change_state(tx, job, JobState.PAUSED, "paused before its turn", parts.clock())
    if job.state in {JobState.YIELDING, JobState.PAUSED} and not job.wish.parked:
        return job
    if job.wish.want == Want.STOP or not job.active:
        raise wrong_state(job, "pause", "only a job that is queued or runs can be paused")
    check_can_yield(job, "pause")
    return yield_machine(parts, job, "pause was asked for")


def check_can_yield(job: Job, verb: str) -> None:
    """Refuse to ask a program that does not take part.

    Raises:
        M1Error: WRONG_STATE.
    """
    if not job.can_yield:
        raise M1Error(
            Reason.WRONG_STATE,
            f"cannot {verb} {job.id} ({job.name}): its program takes no part in it, or has not come to its steps yet",
            f"m1ctl pause --hold {job.name} stops it in place; with m1job it can leave at a checkpoint",
            field="job",
            value=job.id,
        )


def _hold(parts: Parts, job: Job) -> Job:
    if job.state not in {JobState.STARTING, JobState.RUNNING, JobState.HELD}:
        raise wrong_state(job, "hold", "only a job that runs can be held")
    if job.wish.want == Want.STOP:
        raise wrong_state(job, "hold", "it was cancelled and is about to end")
    return job if job.state == JobState.HELD else wish(parts, job, replace(job.wish, want=Want.HOLD))


def yield_machine(parts: Parts, job: Job, reason: str, *, park: bool = False) -> Job:
    """Ask an active job to checkpoint and go; with `park`, to come back with the next daemon."""
    if job.state == JobState.YIELDING:
        return job
    # A job that somebody holds does not start to train by itself after a restart.
    parked = park and job.wish.want == Want.RUN
    leaving = replace(job, wish=replace(job.wish, parked=parked))
    with parts.store.transaction() as tx:
        job = change_state(tx, leaving, JobState.YIELDING, reason, parts.clock(), want=Want.YIELD)
    return tell(parts, job)


def resume(parts: Parts, job: Job) -> Job:
    """Queue a paused job at the head of its priority, or let a held one go on.

    Raises:
        M1Error: WRONG_STATE.
    """
    if job.state == JobState.PAUSED:
        head = parts.store.head_position(job.spec.priority)
        back = replace(job, position=head, wish=replace(job.wish, parked=False))
        with parts.store.transaction() as tx:
            job = change_state(tx, back, JobState.QUEUED, "resumed", parts.clock())
        parts.supervisor.wake()
        return job
    if job.wish.want == Want.HOLD:
        return wish(parts, job, replace(job.wish, want=Want.RUN))
    if job.state == JobState.YIELDING:
        raise wrong_state(job, "resume", "wait until it is PAUSED")
    if job.state in {JobState.FAILED, JobState.CANCELLED}:
        raise wrong_state(job, "resume", f"m1ctl retry {job.name} goes on from its newest checkpoint")
    raise wrong_state(job, "resume", "only a job that is paused or held can be resumed")
