"""Storing a wish to a living process and telling it; and the refusal of one that a job's state does not allow."""

from __future__ import annotations

import logging
from dataclasses import replace

from m1.errors import M1Error, Reason

from m1d.jobs.job import Job, Wish
from m1d.verbs.parts import Parts

_log = logging.getLogger(__name__)


def wish(parts: Parts, job: Job, wished: Wish) -> Job:
    """Store a wish, which changes no state by itself, and tell it."""
    job = replace(job, wish=wished)
    with parts.store.transaction() as tx:
        tx.update_job(job)
    return tell(parts, job)


def tell(parts: Parts, job: Job) -> Job:
    """Let the process know what is stored."""
    try:
        parts.supervisor.tell(job)
    except OSError as error:
        # It is stored, and so it holds; the supervisor tells it when the disk allows.
        _log.error("%s (%s) could not be told what is wanted, which is tried again: %s", job.id, job.name, error)
    parts.supervisor.wake()
    return job


def wrong_state(job: Job, verb: str, way_out: str) -> M1Error:
    """Make the error of a verb that a job's state does not allow."""
    return M1Error(
        Reason.WRONG_STATE,
        f"cannot {verb} {job.id} ({job.name}) while it is {job.state.value}",
        way_out,
        field="job",
        value=job.id,
    )
