"""Settings that are declared: a kind, a default, a bound, a unit and a sentence for each.

A recipe declares them; the daemon learns the declarations as data (`m1train describe`) and refuses what breaks them
before a job is stored; the training process resolves them again with the same function.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from m1.errors import M1Error, Reason, nearest, shortened

Value = int | float | bool | str
# A path names a file on the computer that trains; it may be one of the choices, too, which are words and no files.
Kind = Literal["int", "float", "bool", "str", "path"]
_SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "path": "a path"}
# A JSON number is a double: a larger integer would not come back as it went.
_LARGEST_INT = 2**53 - 1
# What a person types for a number. Python's own int() and float() take more: "6_4", " 3", other alphabets' digits.
_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class Setting:
    """The declaration of one setting."""

    name: str
    kind: Kind
    default: Value
    summary: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    unit: str = ""

    @property
    def bounds(self) -> str:
        """What is allowed, in words: "from 1 to 4096", "one of a, b"."""
        if self.kind == "bool":
            return "true or false"
        if self.kind == "path":
            return ", ".join((*self.choices, "or an absolute path" if self.choices else "an absolute path"))
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.minimum is not None and self.maximum is not None:
            return f"from {_number(self.minimum)} to {_number(self.maximum)}"
        if self.minimum is not None:
            return f"at least {_number(self.minimum)}"
        return f"at most {_number(self.maximum)}" if self.maximum is not None else "anything"

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self) | {"choices": list(self.choices)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Setting:
        """From plain data."""
        return cls(**{**data, "choices": tuple(data["choices"])})


def resolve(declared: Sequence[Setting], given: Mapping[str, object]) -> dict[str, Value]:
    """Every declared setting with its given or default value, typed and inside its bounds.

    Raises:
        M1Error: INVALID_SETTING, for the first given setting that is unknown, of the wrong kind or out of bounds.
    """
    by_name = {setting.name: setting for setting in declared}
    for name in given:
        if name not in by_name:
            raise M1Error(
                Reason.INVALID_SETTING,
                f'there is no setting "{shortened(name)}"',
                nearest(name, by_name),
                field=f"settings.{name}",
                value=_shown(given[name]),
            )
    return {name: check(by_name[name], given[name]) if name in given else by_name[name].default for name in by_name}


def check(setting: Setting, given: object) -> Value:
    """The given value in the setting's kind, or the error that says why not."""
    value = convert(setting.kind, given)
    if value is None or not inside(setting, value):
        outside = "is none of its choices" if setting.choices else "is out of bounds"
        if setting.kind == "path":
            outside = "is not an absolute path"
        problem = f"is not {_KINDS[setting.kind]}" if value is None else outside
        raise M1Error(
            Reason.INVALID_SETTING,
            f'the setting {setting.name}="{_shown(given)}" {problem}',
            f"{setting.name} takes {takes(setting)}",
            field=f"settings.{setting.name}",
            value=_shown(given),
        )
    return value


def switch(text: str) -> bool | None:
    """True or false as a person would write it: "on", "No", "FALSE"; None for what is neither."""
    return _SWITCH.get(text.strip().lower())


def takes(setting: Setting) -> str:
    """What is allowed, with its kind and its unit: "a whole number (epochs), from 1 to 100"."""
    if setting.kind in {"bool", "path"} or setting.choices:
        return setting.bounds
    unit = f" ({setting.unit})" if setting.unit else ""
    return f"{_KINDS[setting.kind]}{unit}, {setting.bounds}"


def convert(kind: Kind, given: object) -> Value | None:
    """The value in its kind; None when it has no such form. Text is read as a person would write it."""
    if kind in {"str", "path"}:
        return given if isinstance(given, str) else None
    if kind == "bool":
        if isinstance(given, str):
            return switch(given)
        return given if isinstance(given, bool) else None
    if isinstance(given, bool) or not isinstance(given, (int, float, str)):
        return None
    if isinstance(given, str) and not _NUMBER.fullmatch(given):
        return None
    try:
        if kind == "float":
            number = float(given)
            return number if math.isfinite(number) else None
        if isinstance(given, str) and _WHOLE.fullmatch(given):
            whole = int(given)
        elif float(given).is_integer():
            whole = int(float(given))
        else:
            return None
    except (ValueError, OverflowError):  # too long, or infinite
        return None
    return whole if abs(whole) <= _LARGEST_INT else None


def inside(setting: Setting, value: Value) -> bool:
    """Return True if a value of the setting's kind is within its bounds, or one of its choices."""
    if setting.kind == "path" and os.path.isabs(str(value)):
        return True
    if isinstance(value, str):
        return value in setting.choices or not (setting.choices or setting.kind == "path")
    low = setting.minimum is None or value >= setting.minimum
    return low and (setting.maximum is None or value <= setting.maximum)


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


def _shown(given: object) -> str:
    if isinstance(given, float) and given.is_integer():
        return shortened(str(int(given)), 60)
    if given is None:
        return "null"
    if isinstance(given, (list, tuple)):
        return "a list"
    return "an object" if isinstance(given, dict) else shortened(str(given), 60)
