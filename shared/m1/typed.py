"""Plain data (JSON that somebody else may have written) made into what a declaration says, or refused.

Nothing of a wrong kind gets in, and no number that the contract or the store could not hold.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

# The contract's counters are uint32; sizes and shares of work, which are larger, have these names.
MOST = 2**32 - 1
_LARGE = {"size_bytes", "done", "total"}
# The one whole number of the contract that may be negative.
_SIGNED = {"priority"}
LARGEST = 2**53 - 1


def parsed(content: bytes) -> Any:
    """The plain data of a JSON text.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def record(cls: type[T], data: object, most: int = MOST) -> T:
    """An instance of a dataclass from an object with its fields; fields that it does not know are passed over.

    Raises:
        ValueError: a field is missing, or of another kind than declared.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{_shown(data)} is not an object with the fields of {cls.__name__}")
    given, declared = {}, _hints(cls)  # type: ignore[arg-type] # a class can be hashed
    for name, hint in declared.items():
        if name in data:
            try:
                given[name] = _field(name, hint, data[name], most)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    try:
        return cls(**given)
    except TypeError as error:
        raise ValueError(str(error)) from error


def _field(name: str, hint: Any, value: object, most: int) -> Any:
    if name in _SIGNED and type(value) is int and value < 0:
        return -_value(hint, -value, most)
    return _value(hint, value, LARGEST if name in _LARGE else most)


@functools.cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


def _value(hint: Any, value: object, most: int) -> Any:
    if hint is float and type(value) is float:  # by far the most of what is read: the metrics of every step
        return value
    if hint is str and isinstance(value, str) and value.isascii():
        return value
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _one_of(arguments, value, most)
    if origin is Literal and isinstance(value, str) and value in arguments:
        return value
    if origin in (list, Sequence) and isinstance(value, list):
        return [_value(arguments[0], item, most) for item in value]
    if origin is Mapping and isinstance(value, dict):
        return {_value(arguments[0], key, most): _value(arguments[1], item, most) for key, item in value.items()}
    if origin is None and isinstance(hint, type):
        if is_dataclass(hint):
            return record(hint, value, most)
        if issubclass(hint, enum.StrEnum) and isinstance(value, str):
            return hint(value)
        return _scalar(hint, value, most)
    raise ValueError(f"{_shown(value)} is not what is declared")


def _one_of(hints: Sequence[Any], value: object, most: int) -> Any:
    if value is None and NoneType in hints:
        return None
    if int in hints and float in hints and type(value) is int and -LARGEST <= value <= LARGEST:
        return value  # a setting's value, which may be negative and stays whole
    problem = ValueError(f"{_shown(value)} is not what is declared")
    for hint in hints:
        if hint is not NoneType:
            try:
                return _value(hint, value, most)
            except ValueError as error:
                problem = error
    raise problem


def _scalar(hint: type, value: object, most: int) -> Any:
    if hint is str and isinstance(value, str):
        value.encode()  # half of a surrogate pair can be neither stored nor sent
        return value
    if hint is bool and isinstance(value, bool):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if hint is int and isinstance(value, int) and 0 <= value <= most:
            return value
        if hint is float:
            with contextlib.suppress(OverflowError):
                return float(value)
    raise ValueError(f"{_shown(value)} is not {'a text' if hint is str else f'a {hint.__name__} that is allowed'}")


def _shown(value: object) -> str:
    return repr(value)[:40] if isinstance(value, (int, float, str)) and len(str(value)) < 1000 else type(value).__name__
