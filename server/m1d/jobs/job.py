"""A job as the daemon knows it: immutable data, changed only by making the next one.

A job is its specification (m1.spec), its state, its newest attempt, what is wished of it, and what has come of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from m1.jobdir import Desired, Want
from m1.journal import Exited, Finding
from m1.spec import JobKind, JobSpec

from m1d.jobs.states import ACTIVE, FINAL, JobState, check_transition


@dataclass(frozen=True)
class Progress:
    """How far it is; see m1.v1.Progress."""

    step: int = 0
    total_steps: int = 0
    epoch: int = 0
    total_epochs: int = 0
    phase: str = ""
    phase_done: int = 0
    phase_total: int = 0


@dataclass(frozen=True)
class JobError:
    """Why it failed."""

    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Process:
    """The training process of the current attempt: the pair that a recycled pid cannot fake."""

    pid: int
    start_mark: str
    """When it started, as the system counts it; see m1d.processes.training.start_mark."""


@dataclass(frozen=True)
class Checkpoint:
    """A durable checkpoint of a job."""

    job_number: int
    step: int
    epoch: int
    size_bytes: int
    create_time: float
    weights_sha256: str
    best: bool
    metrics: Mapping[str, float]
    approximate: bool = False

    @property
    def id(self) -> str:
        """Its public id: "j12@352"."""
        return f"{job_id(self.job_number)}@{self.step}"


@dataclass(frozen=True)
class Attempt:
    """One life of the training process for a job; the newest one."""

    number: int = 0
    """Counted from 1; 0: there was none yet."""
    process: Process | None = None
    """While the job holds the machine, and the process is known."""
    journal_offset: int = 0
    """The first byte of its journal that is not taken in yet."""
    journal_damaged: bool = False
    """Its journal has a wrong record, after which nothing is read."""
    begun_at_step: int = 0
    """Where it began."""
    joined: bool = False
    """Its program has said that it takes part."""
    exited: Exited | None = None
    """What it said last; None while it lives, and if it was killed."""


@dataclass(frozen=True)
class Wish:
    """What is wished of a job, and has perhaps not been obeyed yet."""

    want: Want = Want.RUN
    checkpoint_request: int = 0
    """The number of the newest checkpoint that was asked for."""
    checkpoint_served: int = 0
    """The number of the newest request that a durable checkpoint answers."""
    parked: bool = False
    """The daemon took it from the machine, and puts it back by itself when it returns."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job, from submit to a final state. Times are in seconds since the epoch.

    Raises:
        ValueError: it has a process without holding the machine, or an error without having failed.
    """

    number: int
    name: str
    spec: JobSpec
    position: int
    """Among the jobs of its priority: the smallest runs first."""
    create_time: float
    request_id: str | None = None
    parent_copy: str = ""
    """The directory, in the home's jobs/, that becomes its own before the first start; see m1d.jobs.parent."""
    state: JobState = JobState.QUEUED
    reason: str = ""
    error: JobError | None = None
    """While it is FAILED."""
    attempt: Attempt = field(default_factory=Attempt)
    wish: Wish = field(default_factory=Wish)
    failures: int = 0
    """Attempts in a row that failed without a checkpoint newer than the one they began with."""
    not_finite_step: int | None = None
    """The step at which an attempt last ended because a number was not finite."""
    failed_alike: str = ""
    """Where and how an attempt last failed, if it would fail so again were it the program's doing."""
    approximate: Sequence[str] = ()
    """What differed when it went on under other conditions, in words; empty: it is exact."""
    progress: Progress = field(default_factory=Progress)
    latest: Mapping[str, float] = field(default_factory=dict)
    """The last value of every metric."""
    findings: Sequence[Finding] = ()
    """What it has measured so far. Its results are files, which the store lists."""
    times: Mapping[str, float] = field(default_factory=dict)
    """When it last entered each state, by the state's word."""
    from_0_1_0: Mapping[str, Any] = field(default_factory=dict)
    """What m1d 0.1.0 said of it and this version says elsewhere; see m1.legacy."""

    def __post_init__(self) -> None:
        if self.attempt.process and not self.active:
            raise ValueError(f"{self.id} is {self.state} and has a process")
        if self.error and self.state != JobState.FAILED:
            raise ValueError(f"{self.id} is {self.state} and has an error")

    @property
    def id(self) -> str:
        """Its public id: "j12"."""
        return job_id(self.number)

    @property
    def kind(self) -> JobKind:
        """What it is, whatever its recipe."""
        return self.spec.kind

    @property
    def active(self) -> bool:
        """It holds the machine."""
        return self.state in ACTIVE

    @property
    def can_yield(self) -> bool:
        """It leaves the machine at a checkpoint when it is asked to."""
        return self.kind != "program" or self.attempt.joined

    @property
    def final(self) -> bool:
        """It is over."""
        return self.state in FINAL

    @property
    def desired(self) -> Desired:
        """What its training process shall do."""
        return Desired(self.wish.want, self.wish.checkpoint_request)

    def moved(
        self, state: JobState, reason: str, now: float, *, want: Want | None = None, error: JobError | None = None
    ) -> Job:
        """Make the job after a change of state, at `now`.

        Args:
            state: the new one.
            reason: why, in words.
            now: seconds since the epoch.
            want: what is wished from now on; None: as it was, and to run once it does not hold the machine.
            error: why it failed.

        Raises:
            IllegalTransitionError: the table does not have it.
        """
        check_transition(self.state, state)
        active = state in ACTIVE
        kept = self.wish.want if active else Want.RUN
        return replace(
            self,
            state=state,
            reason=reason,
            error=error,
            attempt=self.attempt if active else replace(self.attempt, process=None),
            wish=replace(self.wish, want=want or kept),
            times={**self.times, state.value: now},
        )


def job_id(number: int) -> str:
    """The public id of a job's number: "j12"."""
    return f"j{number}"
