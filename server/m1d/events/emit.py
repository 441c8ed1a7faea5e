"""How a change of a job is written down: the job, and the event that tells of it, in one transaction."""

from __future__ import annotations

from typing import Any

from m1.jobdir import Want
from m1.v1 import event_pb2, job_pb2

from m1d.events.translate import KIND_OF_PAYLOAD, job_to_proto, state_to_proto, timestamp
from m1d.jobs.job import Job, JobError
from m1d.jobs.states import JobState
from m1d.store import Transaction


def emit(tx: Transaction, job: Job, now: float, **payload: Any) -> None:
    """Store one event about a job; `payload` is the one field of m1.v1.Event's oneof."""
    (name,) = payload
    tx.emit(event_pb2.Event(job_id=job.id, time=timestamp(now), **payload), KIND_OF_PAYLOAD[name], job.number)


def notice(tx: Transaction, job: Job, now: float, severity: event_pb2.Severity, message: str) -> None:
    """Tell whoever watches."""
    emit(tx, job, now, notice_raised=event_pb2.NoticeRaised(severity=severity, message=message))


def change_state(
    tx: Transaction,
    job: Job,
    state: JobState,
    reason: str,
    now: float,
    *,
    want: Want | None = None,
    error: JobError | None = None,
) -> Job:
    """Move a job to another state, with its reason, store it with all that is new of it, and tell of it.

    Raises:
        IllegalTransitionError: the table of transitions does not have it.
    """
    after = job.moved(state, reason, now, want=want, error=error)
    tx.update_job(after)
    tell_state(tx, after, now, state_to_proto(job.state))
    return after


def tell_state(tx: Transaction, job: Job, now: float, before: job_pb2.JobState) -> None:
    """Tell of a job's state as it is stored."""
    # The event carries the job as of its own revision, which is the next one.
    told = job_to_proto(job, tx.revision + 1)
    change = event_pb2.StateChanged(to=state_to_proto(job.state), reason=job.reason, job=told)
    setattr(change, "from", before)
    emit(tx, job, now, state_changed=change)
