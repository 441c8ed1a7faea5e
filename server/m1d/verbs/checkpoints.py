"""Asking for a checkpoint."""

from __future__ import annotations

from dataclasses import replace

from m1.errors import M1Error, Reason
from m1.jobdir import Want

from m1d.jobs.job import Checkpoint, Job
from m1d.jobs.states import JobState
from m1d.verbs.parts import Parts
from m1d.verbs.pause import check_can_yield
from m1d.verbs.wishes import wish, wrong_state

_NONE_IS_MADE = {
    "measurement": "it measures, and a measurement makes none",
    "tuning": "it tunes, and a tuning makes none",
}


async def create_checkpoint(parts: Parts, job: Job) -> Checkpoint:
    """Ask for a checkpoint and return it when it is durable.

    Raises:
        M1Error: WRONG_STATE, when the job does not train, or stops before it has made one; SHUTTING_DOWN.
    """
    if job.kind in _NONE_IS_MADE:
        raise wrong_state(job, "checkpoint", _NONE_IS_MADE[job.kind])
    if job.state not in {JobState.RUNNING, JobState.HELD} or job.wish.want == Want.STOP:
        raise wrong_state(job, "checkpoint", "only a job that runs or is held can make one")
    check_can_yield(job, "checkpoint")
    request = job.wish.checkpoint_request + 1
    wish(parts, job, replace(job.wish, checkpoint_request=request))
    while True:
        now = parts.store.job(job.number)
        if now is None:
            raise M1Error(Reason.JOB_NOT_FOUND, f"{job.id} was deleted before it could make a checkpoint")
        if now.wish.checkpoint_served >= request:
            return parts.store.checkpoints(job.number, limit=1)[0]
        if not now.active:
            raise wrong_state(now, "checkpoint", "it ended before it could make one")
        if parts.hub.closed:
            raise M1Error(Reason.SHUTTING_DOWN, "the daemon stops", "ask again when it is back")
        await parts.hub.wait()
