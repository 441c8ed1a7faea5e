"""Times as a person types them: "5m" ago, or a date and a time of day."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from m1.errors import M1Error, Reason, shortened

_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_AGO = re.compile(r"(?:\d{1,9}(?:\.\d{1,6})?[dhms])+")


def moment(typed: str, now: datetime) -> datetime:
    """Return the time that was meant: "90s", "2h30m" before now, or an ISO date; without a zone it is now's.

    Raises:
        M1Error: INVALID_ARGUMENT.
    """
    try:
        if _AGO.fullmatch(typed):
            parts = re.findall(r"([\d.]+)([dhms])", typed)
            return now - sum((timedelta(**{_UNITS[unit]: float(n)}) for n, unit in parts), timedelta())
        said = datetime.fromisoformat(typed)
        return said if said.tzinfo else said.replace(tzinfo=now.tzinfo)
    except (ValueError, OverflowError):
        raise M1Error(
            Reason.INVALID_ARGUMENT,
            f'"{shortened(typed)}" is not a time',
            'write how long ago, such as "5m" or "2h30m", or a time, such as "2026-03-01T12:00"',
            field="since",
            value=typed,
        ) from None
