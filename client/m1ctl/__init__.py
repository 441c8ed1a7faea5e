"""The client of m1d: the SDK (`from m1ctl import connect`), the command line and the live monitor.

What a program needs is here: the client, its errors, and the words for a job's states. Importing the package is cheap:
grpc and protobuf are loaded by the first name that is taken from it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m1.errors import ExitCode, M1Error, Reason
    from m1.v1.job_pb2 import Profile

    from m1ctl.sdk.client import Client, ResultFile, connect, recipe_file
    from m1ctl.sdk.states import ACTIVE, CANCELLED, FAILED, FINAL, SUCCEEDED, JobState, state_from_word, state_word

__all__ = [
    "ACTIVE",
    "CANCELLED",
    "FAILED",
    "FINAL",
    "SUCCEEDED",
    "Client",
    "ExitCode",
    "JobState",
    "M1Error",
    "Profile",
    "Reason",
    "ResultFile",
    "connect",
    "recipe_file",
    "state_from_word",
    "state_word",
]
_HOMES = {
    "m1.errors": {"ExitCode", "M1Error", "Reason"},
    "m1.v1.job_pb2": {"Profile"},
    "m1ctl.sdk.client": {"Client", "ResultFile", "connect", "recipe_file"},
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((module for module, names in _HOMES.items() if name in names), "m1ctl.sdk.states")
    return getattr(import_module(home), name)
