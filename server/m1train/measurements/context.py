"""What a measurement is: a job that trains nothing, and whose result is findings.

It runs like a training (its own process, one at a time, watched, held, stopped), takes no dataset and makes no
checkpoint: one that was paused begins anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from m1.jobdir import Profile
from m1.journal import Finding, Findings, Metrics, Phase, Plan
from m1.process.control import Control
from m1.process.journal import Journal

from m1train.job.obey import obey


class Measurement(Protocol):
    """A measurement with its settings, about to be made."""

    def measure(self, context: MeasurementContext) -> None:
        """Measure; call `context.heed` at least every half second, and `context.found` with all that is known by then.

        Raises:
            StopRequested: the daemon wants this process to go.
            M1Error: why it cannot be measured.
        """
        ...


@dataclass
class MeasurementContext:
    """What a measurement works with: how the machine runs it, what the daemon wants, and where its results go."""

    profile: Profile
    control: Control
    journal: Journal
    total: int = 0
    done: int = 0

    def plan(self, total: int) -> None:
        """Say how many parts the measurement has; may be said again."""
        self.total = total
        self.journal.append(Plan(self.done, self.done, total, total))

    def phase(self, name: str) -> None:
        """Say what is measured now, in a few words."""
        self.journal.append(Phase(name))

    def part_done(self, values: Mapping[str, float]) -> None:
        """Count a part, with metrics that belong to it."""
        self.done += 1
        self.journal.append(Metrics(self.done, self.done, dict(values)))

    def found(
        self, findings: Sequence[Finding], profile: Profile | None = None, conditions: Mapping[str, str] | None = None
    ) -> None:
        """Publish all that has been found, in place of what was published before."""
        self.journal.append(Findings(list(findings), profile, conditions or {}))

    def heed(self) -> bool:
        """Do what the daemon wants, and return True if that took time: what was measured meanwhile is not to be used.

        Raises:
            StopRequested: it wants this process to go.
        """
        return obey(self.control, self.journal, self.done)
