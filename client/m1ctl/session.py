"""What the global options say: which home, how long a call may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer
from m1.errors import M1Error, Reason
from m1.paths import Home, home_from_environment

if TYPE_CHECKING:
    from m1ctl.client import Client


@dataclass(frozen=True)
class Session:
    """One run of the command line."""

    home_override: str | None
    timeout_s: float | None
    """What --timeout says. Without it a call has the SDK's deadline, and what waits for a training has none."""

    @property
    def home(self) -> Home:
        """The home that the command is about."""
        return home_from_environment(self.home_override)

    def connect(self) -> Client:
        """A client of the home's daemon."""
        from m1ctl.client import DEFAULT_TIMEOUT_S, connect

        return connect(self.home.root, DEFAULT_TIMEOUT_S if self.timeout_s is None else self.timeout_s)


def session_of(context: typer.Context) -> Session:
    """The session of the command that runs."""
    session = context.find_object(Session)
    assert session is not None
    return session


def reference(job: str | None) -> str:
    """What the wire takes for an optional JOB: empty for the one that runs.

    An empty JOB that was typed is refused: `m1ctl cancel "$UNSET"` must not cancel what happens to run.

    Raises:
        M1Error: INVALID_ARGUMENT.
    """
    if job == "":
        raise M1Error(
            Reason.INVALID_ARGUMENT,
            'job "" is empty',
            "name an id or a name, or leave JOB out for the job that runs",
            field="job",
        )
    return job or ""
