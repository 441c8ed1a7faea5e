"""Libraries of which the command line uses little: each is loaded when something is first taken from it.

`import grpc` brings asyncio with all that is under it, protobuf the generator of messages that only its pure Python
needs. The names below are imported by those, and by typer, at their own import; for a verb that asks the daemon
one thing they are half of its time. The standard library's LazyLoader puts a module in their place that becomes the
real one at the first look into it, so what needs one of them gets it.

For the process of `m1ctl` alone, and before anything else is imported: a program that uses the SDK imports as ever.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

# A module that is imported twice before it is used is loaded by the second import; and what others import names from
# (`from datetime import datetime`), or what registers itself when it is imported, as generated messages do, is none
# to defer.
_DEFERRED = frozenset({"asyncio", "google.protobuf.internal.python_message", "grpc.aio", "socket"})


class _Deferring:
    """A finder on sys.meta_path, before the others."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return what PathFinder finds, to be loaded later; None for all that is not ours to defer."""
        if name not in _DEFERRED:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def defer() -> None:
    """From now on load these libraries when they are first used."""
    sys.meta_path.insert(0, _Deferring())
