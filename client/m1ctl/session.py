"""What the global options say: which home, how long a call may take."""

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
    """What --timeout says. Without it a call has the SDK's deadline, and what waits for a training has none."""

    @property
    def home(self) -> Home:
        """The home that the command is about."""
        return home_from_environment(self.home_override)

    def connect(self) -> Client:
        """A client of the home's daemon."""
        from m1ctl.sdk.client import DEFAULT_TIMEOUT_S, connect

        return connect(self.home.root, DEFAULT_TIMEOUT_S if self.timeout_s is None else self.timeout_s)


def session_of(context: typer.Context) -> Session:
    """The session of the command that runs."""
    session = context.find_object(Session)
    assert session is not None
    return session


def check_not_empty(field: str, value: str | None, way_out: str) -> None:
    """Refuse an empty text that was typed: of `"$UNSET"` nobody knows what was meant.

    Raises:
        M1Error: INVALID_ARGUMENT.
    """
    if value == "":
        raise M1Error(Reason.INVALID_ARGUMENT, f'{field} "" is empty', way_out, field=field)


def check_timeout(timeout_s: float | None) -> None:
    """Refuse a time that no call can take: nan, inf and what is not above 0.

    Raises:
        M1Error: INVALID_ARGUMENT.
    """
    if timeout_s is not None and not 0 < timeout_s <= MAX_TIMEOUT_S:
        raise M1Error(
            Reason.INVALID_ARGUMENT,
            f"--timeout {timeout_s:g} is out of bounds",
            f"it takes a number of seconds above 0, at most {MAX_TIMEOUT_S:.0f}",
            field="timeout",
            value=str(timeout_s),
        )


def reference(job: str | None) -> str:
    """What the wire takes for an optional JOB: empty for the one that runs.

    An empty JOB that was typed is refused: `m1ctl cancel "$UNSET"` must not cancel what happens to run.

    Raises:
        M1Error: INVALID_ARGUMENT.
    """
    check_not_empty("job", job, "name an id or a name, or leave JOB out for the job that runs")
    return job or ""
