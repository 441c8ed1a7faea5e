"""The client of m1d: the SDK (`from m1ctl import connect`), the command line and the live monitor.

Importing the package is cheap: grpc is loaded by the first `connect`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m1ctl.sdk.client import Client, connect, recipe_file

__all__ = ["Client", "connect", "recipe_file"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from m1ctl.sdk import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
