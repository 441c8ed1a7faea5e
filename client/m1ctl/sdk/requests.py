"""Building the messages that are sent, in one place: what protobuf refuses becomes a sentence about the field.

protobuf itself says "Value out of range: 99999999999" and leaves the field to be guessed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from m1.errors import M1Error, Reason
from m1.limits import MOST_PAGE, MOST_POINTS, MOST_RETRIES, PRIORITY, RECIPE_FILE_BYTES
from m1.v1 import job_pb2, recipe_pb2

M = TypeVar("M", bound=Message)

# UnicodeEncodeError is a ValueError: an argument that is no UTF-8 ends here as well.
_REFUSALS = (ValueError, TypeError, OverflowError)
_WIRE_BOUNDS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}
# Narrower than the wire's: those that the contract (proto/m1/v1) states.
_STATED_BOUNDS = {
    "priority": (-PRIORITY, PRIORITY),
    "retries": (0, MOST_RETRIES),
    "page_size": (0, MOST_PAGE),
    "max_points": (0, MOST_POINTS),
}
_SHOWN = 80
SAID_BY_THE_DAEMON = ("origin", "source", "stale")
"""The fields of a profile that nobody sets."""


def build(message: type[M], where: str = "", /, **fields: Any) -> M:
    """Return a message with these fields; None leaves one out.

    Args:
        message: Its class.
        where: What an error puts before the field's name: "spec.".
        fields: Their values.

    Raises:
        M1Error: INVALID_ARGUMENT, with the field, the value and what it takes.
    """
    try:
        return message(**fields)
    except _REFUSALS:
        for name, value in fields.items():
            try:
                message(**{name: value})
            except _REFUSALS as error:
                raise _refused(f"{where}{name}", value, _takes(message, name)) from error
        raise


def build_settings(settings: Mapping[str, Any], where: str = "settings.") -> Struct:
    """Return settings, or options, as they are sent.

    Raises:
        M1Error: INVALID_ARGUMENT, with the setting and its value.
    """
    struct = Struct()
    for name, value in settings.items():
        try:
            struct.update({name: value})
        except _REFUSALS as error:
            raise _refused(f"{where}{name}", value, "it takes a number, true, false or text") from error
    return struct


def asked_profile(profile: job_pb2.Profile | None) -> job_pb2.Profile | None:
    """Return a profile as it is asked for; that of another job may be given as it is."""
    if not isinstance(profile, job_pb2.Profile):
        return profile  # None, or what `build` refuses
    asked = job_pb2.Profile()
    asked.CopyFrom(profile)
    for name in SAID_BY_THE_DAEMON:
        asked.ClearField(name)
    return asked


def recipe_file(path: str | os.PathLike[str], class_name: str = "") -> job_pb2.RecipeFile:
    """Return a user's own recipe as it is sent: a Python file, with the class in it when there are several.

    Raises:
        M1Error: RECIPE_NOT_FOUND or TOO_LARGE.
        OSError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(RECIPE_FILE_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError):
        raise M1Error(
            Reason.RECIPE_NOT_FOUND,
            f'file "{path}" does not exist',
            "m1ctl recipes new FILE writes one to start from",
            field="recipe",
            value=str(path),
        ) from None
    if len(content) > RECIPE_FILE_BYTES:
        message = f'"{path}" is too large for a recipe'
        raise M1Error(Reason.TOO_LARGE, message, f"the limit is {RECIPE_FILE_BYTES} bytes", field="recipe")
    return build(job_pb2.RecipeFile, name=os.path.basename(path), class_name=class_name, content=content)


def recipe_named(recipe: str) -> str | job_pb2.RecipeFile:
    """Return the recipe that was typed: a name, or a file ("./mine.py", "mine.py:Mine"), which is read.

    It is a file when it has a separator, or ends in ".py" before the class.

    Raises:
        M1Error, OSError: as `recipe_file`.
    """
    path, colon, class_name = recipe.rpartition(":")
    if not colon or not class_name.isidentifier():
        path, class_name = recipe, ""
    is_file = os.sep in path or path.endswith(".py")
    return recipe_file(os.path.expanduser(path), class_name) if is_file else recipe


def name_or_file(recipe: str | job_pb2.RecipeFile) -> dict[str, Any]:
    """Return the field of a message that takes a recipe."""
    return {"recipe_file" if isinstance(recipe, job_pb2.RecipeFile) else "recipe": recipe}


def absolute_paths(settings: Mapping[str, str], declared: Callable[[], Iterable[recipe_pb2.Setting]]) -> dict[str, str]:
    """The settings, with those that are paths made absolute, from here: the daemon works elsewhere.

    Args:
        settings: As they were typed.
        declared: Asks for the recipe's settings; not called where nothing looks like a path (has a separator, begins
            with "~", or names what exists here).
    """
    relative = {name for name, value in settings.items() if _is_relative(value)}
    if not relative:
        return dict(settings)
    choices = {setting.name: setting.choices for setting in declared() if setting.kind == "path"}
    return {
        name: os.path.abspath(os.path.expanduser(value))
        if name in relative and name in choices and value not in choices[name]
        else value
        for name, value in settings.items()
    }


def _is_relative(value: str) -> bool:
    looks_so = os.sep in value or value.startswith("~") or os.path.exists(value)
    return looks_so and not os.path.isabs(value)


def build_program(
    command: Sequence[str | os.PathLike[str]], directory: str | os.PathLike[str], environment: Mapping[str, str]
) -> job_pb2.Program:
    """Return a program as it is sent; a path may be given as one.

    Raises:
        M1Error: INVALID_ARGUMENT; of a variable only the name is said, for its value may be a secret.
    """
    if isinstance(command, (str, bytes)):
        raise _refused("spec.program.command", command, 'command takes a list of texts: ["python", "train.py"]')
    if not isinstance(environment, Mapping):
        raise _refused("spec.program.environment", type(environment).__name__, "environment takes a dictionary")
    for name, value in environment.items():
        try:
            job_pb2.Program(environment={name: value})
        except _REFUSALS as error:
            raise _refused("spec.program.environment", name, "a variable takes text in UTF-8") from error
    typed = [_path_as_text(each) for each in command] if isinstance(command, Iterable) else command
    where = _path_as_text(directory)
    return build(job_pb2.Program, "spec.program.", command=typed, directory=where, environment=environment)


def _path_as_text(value: object) -> object:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _refused(field: str, value: object, way_out: str) -> M1Error:
    shown = repr(value) if not isinstance(value, str) else f'"{value}"'
    if len(shown) > _SHOWN:
        shown = f"{shown[:_SHOWN]}..."
    what = "is out of bounds" if isinstance(value, int) and "number" in way_out else "cannot be sent"
    return M1Error(
        Reason.INVALID_ARGUMENT, f"{field.rpartition('.')[2]}={shown} {what}", way_out, field=field, value=shown
    )


def _takes(message: type[Message], name: str) -> str:
    """Say what a field takes, as the second half of a sentence."""
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        return f"{message.DESCRIPTOR.name} has no such field"
    bounds = _STATED_BOUNDS.get(name) or _WIRE_BOUNDS.get(field.type)
    if bounds:
        return f"{name} takes a whole number from {bounds[0]} to {bounds[1]}"
    if field.message_type:
        return f"{name} takes a {field.message_type.name}"
    if field.enum_type:
        return f"{name} takes a {field.enum_type.name}"
    kinds = {FieldDescriptor.TYPE_STRING: "text in UTF-8", FieldDescriptor.TYPE_BOOL: "true or false"}
    return f"{name} takes {kinds.get(field.type, 'a number')}"
