"""What a job is: one specification, from the request that was checked to the training process that carries it out.

The daemon makes a JobSpec when a job is submitted and never changes it. It goes through the check, the store and the
job's directory as it is; there, as `Spec`, it also says which job it is and where the data are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from m1.limits import DEFAULT_RETRIES
from m1.metrics import Metric
from m1.profile import Profile, Source
from m1.settings import Value

JobKind = Literal["training", "tuning", "measurement", "program"]


@dataclass(frozen=True)
class RecipeFile:
    """A user's recipe: its file stands in the job's directory as `recipe.py`."""

    name: str
    class_name: str
    sha256: str


@dataclass(frozen=True)
class Program:
    """A program of the user's own, and how it is started."""

    command: Sequence[str]
    """The program and its arguments."""
    directory: str
    """Where it starts: an absolute path."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What is set beside what the daemon passes on."""


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """What is trained and how. Immutable once it is submitted."""

    kind: JobKind = "training"
    """A training makes checkpoints and results; a tuning and a measurement find something, and keep nothing else; of a
    program everything but its exit status is its own affair."""
    recipe: str
    """Empty: it runs a program."""
    data: str = ""
    """A dataset's name or an absolute path; empty for a job that takes none."""
    settings: Mapping[str, Value] = field(default_factory=dict)
    """All of the recipe's, resolved."""
    profile: Profile = field(default_factory=Profile)
    profile_source: Source = ""
    profile_stale: Sequence[str] = ()
    planned: Sequence[str] = ()
    """The settings that were chosen by this machine's speed when it was submitted."""
    priority: int = 0
    """Higher runs first."""
    retries: int = DEFAULT_RETRIES
    """How many attempts in a row may fail without progress."""
    from_checkpoint: str = ""
    """What it was to begin with, as it was named."""
    recipe_file: RecipeFile | None = None
    """Where the recipe is the user's own, whose class `recipe` names."""
    program: Program | None = None
    """In place of a recipe."""
    fixed: Sequence[str] = ()
    """A tuning: the profile's fields that it leaves as they are."""
    metrics: Sequence[Metric] = ()
    """What the recipe measures; the first one that is better one way chooses the best checkpoint."""
    sample_unit: str = ""
    """What a sample is called: "images", "tokens"."""


@dataclass(frozen=True, kw_only=True)
class Spec(JobSpec):
    """A job's specification as it stands in its directory: all that the training process needs to know."""

    job_id: str
    data_root: str
    """The cache of datasets."""
    has_parent: bool = False
    """It begins with a checkpoint that the daemon has put into its directory: without a good one it must not train."""


def in_directory(spec: JobSpec, job_id: str, data_root: str, *, has_parent: bool) -> Spec:
    """Make the specification as it stands in a job's directory."""
    said: dict[str, Any] = {each.name: getattr(spec, each.name) for each in fields(JobSpec)}
    return Spec(**said, job_id=job_id, data_root=data_root, has_parent=has_parent)
