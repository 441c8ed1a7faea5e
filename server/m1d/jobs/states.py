"""The life of a job: its states and the one table of allowed changes between them."""

from __future__ import annotations

import enum


class JobState(enum.StrEnum):
    """What a job is doing; the words of the contract, without their prefix."""

    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    HELD = "HELD"
    YIELDING = "YIELDING"
    PAUSED = "PAUSED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


# A training process exists, may exist, or has just died. At most one job is in one of these.
ACTIVE = frozenset({JobState.STARTING, JobState.RUNNING, JobState.HELD, JobState.YIELDING})
FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})

_S = JobState
TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    _S.QUEUED: frozenset({_S.STARTING, _S.PAUSED, _S.CANCELLED}),
    # To QUEUED: its training process was lost with the daemon, and it takes its turn again.
    _S.STARTING: frozenset({_S.RUNNING, _S.YIELDING, _S.QUEUED, _S.FAILED, _S.CANCELLED}),
    _S.RUNNING: frozenset({_S.HELD, _S.YIELDING, _S.QUEUED, _S.SUCCEEDED, _S.FAILED, _S.CANCELLED}),
    _S.HELD: frozenset({_S.RUNNING, _S.YIELDING, _S.QUEUED, _S.FAILED, _S.CANCELLED}),
    # To SUCCEEDED: the last step was done before the wish was seen.
    _S.YIELDING: frozenset({_S.PAUSED, _S.SUCCEEDED, _S.FAILED, _S.CANCELLED}),
    _S.PAUSED: frozenset({_S.QUEUED, _S.CANCELLED}),
    _S.SUCCEEDED: frozenset(),
    # By a retry.
    _S.FAILED: frozenset({_S.QUEUED}),
    _S.CANCELLED: frozenset({_S.QUEUED}),
}


class IllegalTransitionError(Exception):
    """The program tried a change that the table does not have: a bug, never a user's doing."""


def check_transition(before: JobState, after: JobState) -> None:
    """Refuse what the table does not have.

    Raises:
        IllegalTransitionError: always a bug in the daemon.
    """
    if after not in TRANSITIONS[before]:
        raise IllegalTransitionError(f"{before} -> {after}")
