"""Choosing what is trained by how fast this machine trains it: what a planner is given, and what it answers.

A recipe whose declaration names a planner has settings that say how long the training may take. The planner is a
function of the settings and a Pace, torch-free, run once, when the job is submitted: what it chooses is stored in the
job's settings, so the job trains that plan to its end, wherever it goes on. A plan that is in the settings already is
left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from m1.settings import Value

Choosing = Literal["now", "later", "never"]
"""When a plan is chosen: now; later, so that only what no plan could mend is refused; or never, so that what is there
must do."""


@dataclass(frozen=True)
class StepTime:
    """How long steps take here."""

    first_s: float
    """The first one: it also makes what the others find made."""
    each_s: float
    """The median of the others."""


@dataclass(frozen=True)
class Counts:
    """How many samples a dataset has; None where that is not known."""

    train: int | None = None
    test: int | None = None
    """None beside a known `train`: the data have no test split, and a part of `train` is set apart as one."""


class Pace(Protocol):
    """How fast this machine trains with the job's profile. A question may take seconds, and nothing is kept of it."""

    def step(self, config: Any) -> StepTime:
        """Time the steps of a training with these settings, in its first epoch."""
        ...

    def evaluation(self, config: Any) -> float:
        """Give the seconds that a sample takes in an evaluation with these settings."""
        ...

    def checkpoint(self, config: Any) -> float:
        """Give the seconds that a checkpoint takes with these settings."""
        ...


@dataclass(frozen=True)
class Planned:
    """What a planner chose."""

    settings: Mapping[str, Value] = field(default_factory=dict)
    """What to store in the job's settings; empty: there was nothing to choose."""
    seconds: float = 0.0
    """What the training will take, from its first step to the end of its test."""
    words: str = ""
    """The plan as a person says it."""

    def to_json(self) -> dict[str, Any]:
        """As plain data, in the form of `m1train plan`."""
        return {"settings": dict(self.settings), "seconds": self.seconds, "words": self.words}
