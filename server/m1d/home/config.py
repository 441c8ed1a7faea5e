"""The daemon's own settings: `config.toml` in the home, declared and checked like a recipe's.

[retention]
events = 200000          # events that a watcher can still be told
single_points_days = 365.0
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from m1.errors import M1Error, Reason, nearest
from m1.settings import Setting, resolve

_RETENTION = (
    Setting(
        "events",
        "int",
        200_000,
        "How many events are kept for watchers that come with an old revision.",
        minimum=1000,
        maximum=1_000_000_000,
        unit="events",
    ),
    Setting(
        "single_points_days",
        "float",
        365.0,
        "How long after a job's end its metrics are kept point by point; summaries of 64 steps stay.",
        minimum=0,
        maximum=100_000,
        unit="days",
    ),
)


@dataclass(frozen=True)
class Config:
    """What can be set."""

    retained_events: int
    single_points_days: float


def read_config(path: Path) -> Config:
    """The settings of the file, and defaults for what it does not have. A missing file has none.

    Raises:
        M1Error: INVALID_SETTING, with the file's name.
    """
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError:
        document = {}
    except (OSError, ValueError) as error:
        raise M1Error(
            Reason.INVALID_SETTING,
            f'"{path}" is not readable as TOML ({error})',
            "mend it or remove it",
            field="config",
        ) from error
    unknown = sorted(set(document) - {"retention"})
    if unknown:
        raise M1Error(
            Reason.INVALID_SETTING,
            f'"{path}" has an unknown section [{unknown[0]}]',
            nearest(unknown[0], ["retention"]),
            field=unknown[0],
        )
    section = document.get("retention", {})
    if not isinstance(section, dict):
        raise M1Error(Reason.INVALID_SETTING, f'"{path}": retention is not a section', "write [retention]")
    try:
        values = resolve(_RETENTION, section)
    except M1Error as error:
        raise M1Error(error.reason, f'"{path}" [retention]: {error.message}', error.hint, error.field) from error
    return Config(int(values["events"]), float(values["single_points_days"]))
