"""The daemon's own settings: `config.toml` in the home, declared and checked like a recipe's.

[retention]
events = 200000          # events that a watcher can still be told
single_points_days = 365.0

[environment]
pass = ["HF_*"]          # what more of the daemon's environment reaches the training (m1d.processes.environment)

[environment.set]
HF_HOME = "/data/hf"
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m1.errors import M1Error, Reason, nearest, shortened
from m1.settings import Setting, Value, resolve

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


_PATTERN = re.compile(r"[A-Za-z_*][A-Za-z0-9_*]*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What m1d sets itself, and why nobody else may.
_OURS = {
    "M1D_HOME": "it is the daemon's home",
    "OMP_NUM_THREADS": "a job's profile has its threads",
    "MKL_NUM_THREADS": "a job's profile has its threads",
    "PYTHONUNBUFFERED": "a job's log needs it",
}


@dataclass(frozen=True)
class EnvironmentConfig:
    """What of the environment reaches the training besides what always does."""

    passed: tuple[str, ...] = ()
    """Names of variables; `*` in one stands for anything."""
    fixed: Mapping[str, str] = field(default_factory=dict)
    """Variables with their values, whatever the daemon's own environment says."""


@dataclass(frozen=True)
class Config:
    """What can be set."""

    retained_events: int
    single_points_days: float
    environment: EnvironmentConfig = EnvironmentConfig()


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
    try:
        _check_names(document, ("retention", "environment"), "an unknown section", "")
        values = _retention(_section(document, "retention"))
        environment = _environment(_section(document, "environment"))
    except M1Error as error:
        raise M1Error(error.reason, f'"{path}" {error.message}', error.hint, error.field, error.value) from error
    return Config(int(values["events"]), float(values["single_points_days"]), environment)


def _section(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = document.get(name, {})
    if not isinstance(section, dict):
        raise M1Error(Reason.INVALID_SETTING, f"has {name}, which is not a section", f"write [{name}]", field=name)
    return section


def _retention(section: Mapping[str, Any]) -> Mapping[str, Value]:
    try:
        return resolve(_RETENTION, section)
    except M1Error as error:
        raise M1Error(error.reason, f"[retention]: {error.message}", error.hint, error.field) from error


def _environment(section: Mapping[str, Any]) -> EnvironmentConfig:
    _check_names(section, ("pass", "set"), "an unknown name", "environment.")
    passed, fixed = section.get("pass", []), section.get("set", {})
    if not (isinstance(passed, list) and all(isinstance(name, str) and _PATTERN.fullmatch(name) for name in passed)):
        hint = 'it takes a list of variables, in which * stands for anything: pass = ["HF_*"]'
        raise _impossible("environment.pass", passed, hint)
    if not isinstance(fixed, dict):
        raise _impossible(
            "environment.set", fixed, 'it is a section: [environment.set], and in it HF_HOME = "/data/hf"'
        )
    for name, value in fixed.items():
        if name in _OURS:
            raise _impossible(f"environment.set.{name}", value, f"leave it out: {_OURS[name]}")
        if not _NAME.fullmatch(name):
            raise _impossible(f"environment.set.{name}", value, "a variable's name has letters, digits and _")
        if not isinstance(value, str) or "\0" in value:
            raise _impossible(f"environment.set.{name}", value, f'a variable holds text: {name} = "{value}"')
    return EnvironmentConfig(tuple(passed), fixed)


def _check_names(section: Mapping[str, Any], known: Sequence[str], what: str, where: str) -> None:
    unknown = sorted(set(section) - set(known))
    if unknown:
        message = f"has {what} [{unknown[0]}]" if not where else f"[environment] has {what} {unknown[0]}"
        raise M1Error(Reason.INVALID_SETTING, message, nearest(unknown[0], known), field=f"{where}{unknown[0]}")


def _impossible(name: str, value: object, hint: str) -> M1Error:
    shown = shortened(str(value), 60)
    return M1Error(Reason.INVALID_SETTING, f"has {name} = {shown}, which is not possible", hint, name, shown)
