"""The global options: which home, and how long a call may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer
from m1.errors import M1Error, Reason
from m1.paths import Home, home_from_environment

if TYPE_CHECKING:
    from m1ctl.sdk.client import Client

MAX_TIMEOUT_S = 1e7
"""A third of a year: less than what a deadline of gRPC overflows at."""


@dataclass(frozen=True)
class Session:
    """One run of the command line."""

    home_override: str | None
    timeout_s: float | None
    """The value of --timeout. Without it a call has the SDK's deadline, and waiting for a job has none."""

    @property
    def home(self) -> Home:
        """The home that the command is about."""
        return home_from_environment(self.home_override)

    def connect(self) -> Client:
        """Return a client of the home's daemon."""
        from m1ctl.sdk.client import DEFAULT_TIMEOUT_S, connect

        return connect(self.home.root, DEFAULT_TIMEOUT_S if self.timeout_s is None else self.timeout_s)


def session_of(context: typer.Context) -> Session:
    """Return the session of the running command."""
    session = context.find_object(Session)
    assert session is not None
    return session


def check_not_empty(argument: str, value: str | None, way_out: str) -> None:
    """Refuse an empty argument ("--name", "JOB"): with `"$UNSET"`, nobody knows what was meant.

    Raises:
        M1Error: INVALID_ARGUMENT.
    """
    if value == "":
        raise M1Error(Reason.INVALID_ARGUMENT, f"{argument} is empty", way_out, field=argument.strip("-").lower())


def check_timeout(timeout_s: float | None) -> None:
    """Refuse a timeout that is not a positive number of seconds.

    Raises:
        M1Error: INVALID_ARGUMENT.
    """
    if timeout_s is not None and not 0 < timeout_s <= MAX_TIMEOUT_S:
        raise M1Error(
            Reason.INVALID_ARGUMENT,
            f"--timeout {timeout_s:g} is out of bounds",
            f"must be above 0 and at most {MAX_TIMEOUT_S:.0f} seconds",
            field="timeout",
            value=str(timeout_s),
        )


def reference(job: str | None) -> str:
    """Return an optional JOB as the contract takes it: empty for the running job.

    An empty JOB that was typed is refused: `m1ctl cancel "$UNSET"` must not cancel whatever is running.

    Raises:
        M1Error: INVALID_ARGUMENT.
    """
    check_not_empty("JOB", job, "give an id or a name, or omit it for the running job")
    return job or ""
