"""Ending a job, and queueing one that has ended again."""

from __future__ import annotations

from dataclasses import replace

from m1.jobdir import Want

from m1d.events.emit import change_state
from m1d.jobs.job import Job
from m1d.jobs.states import JobState
from m1d.verbs.parts import Parts
from m1d.verbs.wishes import wish, wrong_state


def cancel(parts: Parts, job: Job) -> Job:
    """End a job: at once if it has no process, else as soon as that has stopped.

    Raises:
        M1Error: WRONG_STATE.
    """
    if job.state in {JobState.QUEUED, JobState.PAUSED}:
        stays = replace(job, wish=replace(job.wish, parked=False))
        with parts.store.transaction() as tx:
            return change_state(tx, stays, JobState.CANCELLED, "cancelled", parts.clock())
    if not job.active:
        raise wrong_state(job, "cancel", "it is over already")
    return wish(parts, job, replace(job.wish, want=Want.STOP))


def retry(parts: Parts, job: Job) -> Job:
    """Queue a failed or cancelled job again; it goes on from its newest checkpoint.

    Raises:
        M1Error: WRONG_STATE.
    """
    if job.state not in {JobState.FAILED, JobState.CANCELLED}:
        raise wrong_state(job, "retry", "only a job that failed or was cancelled can be retried")
    position = parts.store.last_position(job.spec.priority) + 1
    again = replace(job, position=position, failures=0, not_finite_step=None, failed_alike="")
    with parts.store.transaction() as tx:
        job = change_state(tx, again, JobState.QUEUED, "retried", parts.clock())
    parts.supervisor.wake()
    return job
