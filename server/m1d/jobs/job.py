"""A job as the daemon knows it: immutable data, changed only by making the next one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from m1.jobdir import Desired, Profile, RecipeFile, Want
from m1.journal import Exited, Finding
from m1.settings import Value

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
class Report:
    """The result on the test set; see m1.v1.ClassificationReport."""

    classes: Sequence[str]
    class_accuracy: Sequence[float]
    confusion: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Process:
    """The training process of the current attempt: the pair that a recycled pid cannot fake."""

    pid: int
    start_mark: str
    """When it started, as the system counts it; see m1d.processes.process.start_mark."""


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
class Job:
    """One training run, from submit to a final state. Times are in seconds since the epoch."""

    number: int
    name: str
    recipe: str
    data: str
    settings: Mapping[str, Value]
    profile: Profile
    priority: int
    position: int
    """Among the jobs of its priority: the smallest runs first."""
    create_time: float
    request_id: str | None = None
    retries: int = 2
    """How many attempts in a row may fail without progress."""
    from_checkpoint: str = ""
    """What it was to begin with, as it was named."""
    seed: str = ""
    """The directory, in the home's jobs/, that becomes its own before the first start; see m1d.jobs.parent."""
    state: JobState = JobState.QUEUED
    reason: str = ""
    want: Want = Want.RUN
    checkpoint_request: int = 0
    """The number of the newest checkpoint that was asked for."""
    parked: bool = False
    """The daemon took it from the machine, and puts it back by itself when it returns."""
    attempt: int = 0
    journal_offset: int = 0
    """The first byte of the current attempt's journal that is not taken in yet."""
    journal_damaged: bool = False
    """Its journal has a wrong record, after which nothing is read."""
    checkpoint_served: int = 0
    """The number of the newest request that a durable checkpoint answers."""
    begun_at_step: int = 0
    """Where the current attempt began."""
    failures: int = 0
    """Attempts in a row that failed without a checkpoint newer than the one they began with."""
    approximate: Sequence[str] = ()
    """What differed when it went on under other conditions, in words; empty: it is exact."""
    not_finite_step: int | None = None
    """The step at which an attempt last ended because a number was not finite."""
    exited: Exited | None = None
    """What the current attempt said last; None while it lives, and if it was killed."""
    process: Process | None = None
    progress: Progress = field(default_factory=Progress)
    latest: Mapping[str, float] = field(default_factory=dict)
    error: JobError | None = None
    report: Report | None = None
    findings: Sequence[Finding] = ()
    """What it has measured so far."""
    recipe_file: RecipeFile | None = None
    """Where the recipe is the user's own."""
    purpose: Literal["train", "tune"] = "train"
    fixed: Sequence[str] = ()
    """A tuning: the profile's fields that it leaves as they are."""
    times: Mapping[str, float] = field(default_factory=dict)
    """When it last entered each state, by the state's word."""

    @property
    def id(self) -> str:
        """Its public id: "j12"."""
        return job_id(self.number)

    @property
    def measures(self) -> bool:
        """Whether it trains nothing that is kept: a measurement, or a tuning. What trains has a data set."""
        return not self.data

    @property
    def active(self) -> bool:
        """Whether it holds the machine."""
        return self.state in ACTIVE

    @property
    def final(self) -> bool:
        """Whether it is over."""
        return self.state in FINAL

    @property
    def desired(self) -> Desired:
        """What its training process shall do."""
        return Desired(self.want, self.checkpoint_request)

    def moved(self, state: JobState, reason: str, now: float, **changes: Any) -> Job:
        """The job after a change of state, at `now`, with other changes that belong to it.

        Raises:
            IllegalTransitionError: the table does not have it.
        """
        check_transition(self.state, state)
        if state not in ACTIVE:
            changes = {"process": None, "want": Want.RUN} | changes
        if state != JobState.FAILED:
            changes = {"error": None} | changes
        times = {**self.times, state.value: now}
        return replace(self, state=state, reason=reason, times=times, **changes)


def job_id(number: int) -> str:
    """The public id of a job's number: "j12"."""
    return f"j{number}"
