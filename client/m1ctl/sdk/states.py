"""The states of a job as a client sees them: which are final, which hold the machine, what they are called."""

from __future__ import annotations

import enum
from typing import cast

from m1.v1 import job_pb2


class JobState(enum.IntEnum):
    """A job's state by its word: `JobState(job.state)` prints "succeeded", and equals `job.state`."""

    QUEUED = job_pb2.JOB_STATE_QUEUED
    STARTING = job_pb2.JOB_STATE_STARTING
    RUNNING = job_pb2.JOB_STATE_RUNNING
    HELD = job_pb2.JOB_STATE_HELD
    YIELDING = job_pb2.JOB_STATE_YIELDING
    PAUSED = job_pb2.JOB_STATE_PAUSED
    SUCCEEDED = job_pb2.JOB_STATE_SUCCEEDED
    FAILED = job_pb2.JOB_STATE_FAILED
    CANCELLED = job_pb2.JOB_STATE_CANCELLED

    def __str__(self) -> str:
        return self.name.lower()

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


SUCCEEDED = job_pb2.JOB_STATE_SUCCEEDED
FAILED = job_pb2.JOB_STATE_FAILED
CANCELLED = job_pb2.JOB_STATE_CANCELLED
FINAL: frozenset[job_pb2.JobState] = frozenset({SUCCEEDED, FAILED, CANCELLED})
ACTIVE: tuple[job_pb2.JobState, ...] = (
    job_pb2.JOB_STATE_STARTING,
    job_pb2.JOB_STATE_RUNNING,
    job_pb2.JOB_STATE_HELD,
    job_pb2.JOB_STATE_YIELDING,
)
_PREFIX = "JOB_STATE_"


def state_word(state: job_pb2.JobState) -> str:
    """Return the word for people: "running"; a state that a newer daemon sends is shown by its number."""
    known = job_pb2.JobState.values()
    return job_pb2.JobState.Name(state).removeprefix(_PREFIX).lower() if state in known else f"state {state}"


def state_from_word(word: str) -> job_pb2.JobState:
    """Return the state for "running", "RUNNING" or "JOB_STATE_RUNNING".

    Raises:
        M1Error: INVALID_ARGUMENT, with the nearest word.
    """
    from m1.errors import M1Error, Reason, nearest

    name = _PREFIX + word.upper().removeprefix(_PREFIX)
    by_name = {known: state for known, state in job_pb2.JobState.items() if state != job_pb2.JOB_STATE_UNSPECIFIED}
    if name in by_name:
        return cast("job_pb2.JobState", by_name[name])
    words = [known.removeprefix(_PREFIX).lower() for known in by_name]
    raise M1Error(
        Reason.INVALID_ARGUMENT, f'there is no state "{word}"', nearest(word, words), field="states", value=word
    )


def job_title(job: job_pb2.Job) -> str:
    """Return a job's name in a sentence: "j12 (first)"."""
    return f"{job.id} ({job.name})" if job.name else job.id


def measures(job: job_pb2.Job) -> bool:
    """Return True if a job has findings for its result: it trains nothing that is kept, and makes no checkpoint."""
    return job.kind in {job_pb2.JOB_KIND_TUNING, job_pb2.JOB_KIND_MEASUREMENT}
