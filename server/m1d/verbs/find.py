"""Finding a job or a checkpoint by what a person calls it."""

from __future__ import annotations

import re

from m1.errors import M1Error, Reason, nearest, shortened
from m1.limits import JOB_ID

from m1d.jobs.job import Checkpoint, Job
from m1d.verbs.parts import Parts

_STEP = re.compile(r"0|[1-9][0-9]{0,15}")


def find_job(parts: Parts, reference: str) -> Job:
    """Find the job of an id or a name; of "" the one that holds the machine.

    Raises:
        M1Error: JOB_NOT_FOUND.
    """
    if not reference:
        job = parts.supervisor.active()
        if job is None:
            raise M1Error(Reason.JOB_NOT_FOUND, "no job runs now", "name one; m1ctl list shows them all", field="job")
        return job
    job = parts.store.job_by_name(reference)
    if job is None and JOB_ID.fullmatch(reference):
        job = parts.store.job(int(reference[1:]))
    if job is None:
        raise M1Error(
            Reason.JOB_NOT_FOUND,
            f'there is no job "{shortened(reference)}"',
            nearest(reference, parts.store.newest_names(200)) + "; m1ctl list shows them all",
            field="job",
            value=reference,
        )
    return job


def find_checkpoint(parts: Parts, reference: str) -> tuple[Job, Checkpoint]:
    """Find the checkpoint of an id ("j12@352", "first@352"), with its job.

    Raises:
        M1Error: CHECKPOINT_NOT_FOUND or JOB_NOT_FOUND.
    """
    job_part, _, step = reference.rpartition("@")
    if job_part and _STEP.fullmatch(step):
        job = find_job(parts, job_part)
        checkpoint = parts.store.checkpoint(job.number, int(step))
        if checkpoint:
            return job, checkpoint
    raise M1Error(
        Reason.CHECKPOINT_NOT_FOUND,
        f'there is no checkpoint "{shortened(reference)}"',
        'an id is "<job>@<step>"; m1ctl checkpoints JOB shows them',
        field="checkpoint",
        value=reference,
    )
