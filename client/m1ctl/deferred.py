"""Libraries that the command line hardly uses: each is loaded when something is first taken from it.

`import grpc` brings asyncio with all that is under it, protobuf the generator of messages that only its pure Python
needs, typer what only its help, its completion and its launching of programs use. For a verb that asks the daemon one
thing, those were half of its time. A module stands in their place that becomes the real one at the first look into it,
so what needs one of them gets it. (The standard library's LazyLoader is undone by a second import.)

For the process of `m1ctl` alone, and before anything else is imported: a program that uses the SDK imports as ever.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

# None from which names are imported by the verbs (`from datetime import datetime` is a look into it), and none that
# does something by being imported, as generated messages register themselves.
_DEFERRED = frozenset(
    {
        *("asyncio", "bz2", "ipaddress", "lzma", "socket", "subprocess", "tokenize"),
        *("google.protobuf.internal.python_message", "grpc.aio"),
    }
)
# What the import itself looks for, and sets where a module has it.
_OF_THE_IMPORT = frozenset({"__cached__", "__file__", "__path__"})
_loading = threading.RLock()
_begun: set[str] = set()


class _Deferred(ModuleType):
    """A module that has not been executed."""

    def __getattr__(self, name: str) -> Any:
        if name in _OF_THE_IMPORT:
            raise AttributeError(name)
        with _loading:
            spec = self.__spec__
            assert spec is not None
            assert spec.loader is not None
            if spec.name not in _begun:
                _begun.add(spec.name)
                spec.loader.exec_module(self)
                self.__class__ = ModuleType  # type: ignore[assignment]
        return ModuleType.__getattribute__(self, name)


class _Later:
    """Loads a module by another loader, later."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return a module that is executed at the first look into it."""
        return _Deferred(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leave it as it is, for its own loader."""
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader


class _Deferring:
    """A finder on sys.meta_path, before the others."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return what PathFinder finds, to be loaded later; None for all that is not ours to defer."""
        spec = PathFinder.find_spec(name, path, target) if name in _DEFERRED else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Later(spec.loader)  # type: ignore[assignment]
        return spec


def defer() -> None:
    """From now on load these libraries when they are first used."""
    sys.meta_path.insert(0, _Deferring())
