"""Submitting a job: checked (m1d.verbs.submit.plan), then stored; what was answered is never lost."""

from __future__ import annotations

import re
from collections.abc import Set

from m1.errors import M1Error, Reason
from m1.spec import JobSpec
from m1.v1 import event_pb2, job_pb2

from m1d.events.emit import notice, tell_state
from m1d.jobs import recipe_file as recipe_files
from m1d.jobs.job import Job
from m1d.jobs.names import program_word
from m1d.jobs.parent import copy_checkpoint, remove_copy
from m1d.jobs.states import JobState
from m1d.processes.blocking import copy_from
from m1d.store import Store
from m1d.verbs.parts import Parts
from m1d.verbs.submit.choose_settings import choose_settings
from m1d.verbs.submit.plan import Plan, Request, make_plan


async def submit(parts: Parts, request: Request, *, validate_only: bool = False) -> Job:
    """Check a job and store it; the same request_id twice is the same job.

    Raises:
        M1Error: what is wrong with the request; NAME_TAKEN; BAD_CHECKPOINT for a parent that cannot be copied.
    """
    plan = await make_plan(parts, request)
    # Refused before anything is measured or copied, where that is possible.
    job = known_or_new(parts, plan)
    if job.number:
        return job
    plan = await choose_settings(parts, plan, only_check=validate_only)
    job = known_or_new(parts, plan)
    if validate_only or job.number:
        return job
    if plan.parent is None:
        return store(parts, plan)
    copy = await copy_from(str(plan.parent.source), copy_checkpoint, parts.home, plan.parent)
    try:
        job = store(parts, plan, copy)
    except BaseException:
        remove_copy(parts.home, copy)
        raise
    if job.parent_copy != copy:  # the same request came twice at once
        remove_copy(parts.home, copy)
    return job


def store(parts: Parts, plan: Plan, parent_copy: str = "") -> Job:
    """Store a job, its recipe's file with it, or give the one that the same request made before.

    Raises:
        M1Error: NAME_TAKEN; INVALID_ARGUMENT for a request_id that belongs to another job.
    """
    job = known_or_new(parts, plan, parent_copy)
    if job.number:
        return job
    with parts.store.transaction() as tx:
        job = tx.insert_job(job)
        if plan.upload:
            recipe_files.keep(parts.home, job.id, plan.upload.content)
        tell_state(tx, job, job.create_time, job_pb2.JOB_STATE_UNSPECIFIED)
        if plan.words:
            notice(tx, job, job.create_time, event_pb2.SEVERITY_INFO, plan.words)
    parts.supervisor.wake()
    return job


def known_or_new(parts: Parts, plan: Plan, parent_copy: str = "") -> Job:
    """Give the job that the same request made before, or make the one that would be stored, whose number is 0.

    Raises:
        M1Error: NAME_TAKEN; INVALID_ARGUMENT for a request_id that belongs to another job.
    """
    known = parts.store.job_by_request(plan.request_id) if plan.request_id else None
    if known:
        _check_same(known, plan)
        return known
    name = plan.name or _free_name(parts.store, plan.spec)
    taken = parts.store.job_by_name(name)
    if taken:
        raise M1Error(
            Reason.NAME_TAKEN,
            f'the name "{name}" is taken by {taken.id}',
            "choose another, or leave it out",
            field="name",
            value=name,
        )
    now = parts.clock()
    return Job(
        number=0,
        name=name,
        spec=plan.spec,
        position=parts.store.last_position(plan.spec.priority) + 1,
        create_time=now,
        request_id=plan.request_id or None,
        parent_copy=parent_copy,
        reason="submitted",
        times={JobState.QUEUED.value: now},
    )


def _free_name(known: Store, spec: JobSpec) -> str:
    # A class of a user's file, or a program, may be called what a job may not.
    called = program_word(spec.program) if spec.program else spec.recipe
    stem = re.sub("[^a-z0-9]+", "-", called.lower()).strip("-")[:40] or "job"
    if spec.kind == "tuning":
        stem = f"tune-{stem}"
    number = known.next_number()
    while known.job_by_name(f"{stem}-{number}"):
        number += 1
    return f"{stem}-{number}"


def _check_same(known: Job, plan: Plan) -> None:
    """Refuse a request that asks for another job than it made before; a default may have changed since."""
    # What the machine chose was not asked for, and is another time after time.
    chosen = {*known.spec.planned, *plan.spec.planned}
    same = _asked_for(known.spec, plan, chosen) == _asked_for(plan.spec, plan, chosen)
    if not same or plan.name not in {"", known.name}:
        raise M1Error(
            Reason.INVALID_ARGUMENT,
            f"the request_id belongs to {known.id} ({known.name}), which is another job than the one asked for",
            "choose a new one for a new job",
            field="request_id",
            value=known.request_id or "",
        )


def _asked_for(spec: JobSpec, plan: Plan, chosen: Set[str]) -> tuple[object, ...]:
    return (
        spec.kind,
        spec.recipe,
        spec.recipe_file,
        spec.program,
        spec.data,
        {name: value for name, value in spec.settings.items() if name not in chosen},
        [getattr(spec.profile, name) for name in plan.asked],
        spec.priority,
        spec.from_checkpoint,
    )
