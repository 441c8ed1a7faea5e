"""What people type, as the SDK takes it: KEY=VALUE pairs, profiles, checkpoints, data."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from m1.errors import M1Error, Reason, nearest
from m1.profile import DECLARED
from m1.settings import Setting, Value, convert, inside, takes

if TYPE_CHECKING:
    from m1.v1 import job_pb2

    from m1ctl.sdk.client import Client


def parse_pairs(option: str, given: list[str] | tuple[()]) -> dict[str, str]:
    """Return KEY=VALUE texts as a dictionary; the last value of a key counts, and a value may be empty.

    Raises:
        M1Error: INVALID_ARGUMENT.
    """
    parsed: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise M1Error(
                Reason.INVALID_ARGUMENT,
                f'{option} "{text}" is not KEY=VALUE',
                f"write {option} {key or 'KEY'}=VALUE",
                field=option,
                value=text,
            )
        parsed[key] = value
    return parsed


def parse_profile(given: dict[str, str]) -> job_pb2.Profile:
    """Return a profile with only the given fields.

    Raises:
        M1Error: INVALID_ARGUMENT, for an unknown field or an impossible value.
    """
    from m1.v1 import job_pb2

    profile = job_pb2.Profile()
    for key, value in given.items():
        if key not in DECLARED:
            raise M1Error(
                Reason.INVALID_ARGUMENT,
                f'there is no profile field "{key}"',
                nearest(key, DECLARED),
                field=f"profile.{key}",
                value=value,
            )
        if not value:
            raise M1Error(
                Reason.INVALID_ARGUMENT,
                f"--profile {key} is empty",
                f"write --profile {key}=VALUE, or omit it for the machine's default",
                field=f"profile.{key}",
            )
        setattr(profile, key, _profile_value(DECLARED[key], value))
    return profile


def _profile_value(declared: Setting, given: str) -> Value:
    value = convert(declared.kind, given)
    if value is None or not inside(declared, value):
        raise M1Error(
            Reason.INVALID_ARGUMENT,
            f'--profile {declared.name}="{given}" is invalid',
            f"expected {takes(declared)}",
            field=f"profile.{declared.name}",
            value=given,
        )
    return value


def checkpoint_source(checkpoint: str) -> str:
    """Return a checkpoint as the daemon knows it: an id unchanged, a path absolute."""
    is_path = os.sep in checkpoint or checkpoint[:1] in {".", "~"} or os.path.isdir(checkpoint)
    return os.path.abspath(os.path.expanduser(checkpoint)) if checkpoint and is_path else checkpoint


def data_source(client: Client, data: str) -> str:
    """Return data as the daemon knows it: a name unchanged, a path absolute.

    A path has a separator, begins with "." or "~", or exists here and is not a dataset's name.

    Raises:
        M1Error: INVALID_ARGUMENT for an empty one.
    """
    if not data:
        raise M1Error(Reason.INVALID_ARGUMENT, "--data is empty", "name a dataset or a path, or omit it", field="data")
    if os.sep in data or data[0] in ".~":
        return os.path.abspath(os.path.expanduser(data))
    if os.path.exists(data) and data not in {dataset.name for dataset in client.datasets()}:
        return os.path.abspath(data)
    return data
