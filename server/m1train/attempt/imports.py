"""Importing torch in less time: it is most of what a job spends in "starting".

Two things of it serve nobody. The garbage collector goes through hundreds of thousands of new objects again and again,
all of which stay. And an optimizer of torch imports torch's compiler, with sympy, triton and torch.distributed under
it, to call two functions that do nothing in a process that compiles nothing.

What is trained does not depend on either; bench/start.py measures both.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo"
# What was disabled by the stand-in, and is remembered by torch as being so.
_REMEMBERED: list[Callable[..., Any]] = []


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Inside, no garbage is looked for; what is there at the end is held for good and never looked at."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class _Aside(ModuleType):
    """Stands where the compiler would until it is wanted, and has what an optimizer calls of it.

    The first look for anything else puts the compiler in its place.
    """

    def disable(self, fn: Callable[..., Any] | None = None, recursive: bool = True, **told: Any) -> Any:
        """Return the function, which nothing compiles; if it is not ours or torch's own, the compiler decides.

        Torch asks for its own by `torch._disable_dynamo`, without a wrapping. Somebody else who asks may compile later.
        """
        torchs_own = told == {"wrapping": False}
        if fn is None or not _is_aside() or not (torchs_own or fn.__module__.startswith("m1train.")):
            return _compiler().disable(fn, recursive, **told)
        if torchs_own:
            _REMEMBERED.append(fn)
        return fn

    def graph_break(self, msg: str = "") -> None:
        """Mark a place that the compiler shall not look across."""
        if not _is_aside():
            _compiler().graph_break(msg)

    def __getattr__(self, name: str) -> Any:
        return getattr(_compiler(), name)


class _Below(MetaPathFinder, Loader):
    """Finds the modules below the compiler, which are imported after it: so the compiler comes first."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the module that came with the compiler; None when another finder is to find it."""
        if not fullname.startswith(f"{_COMPILER}.") or not _is_aside():
            return None
        _compiler()
        return ModuleSpec(fullname, self) if fullname in sys.modules else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return it as it is."""
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """It has been executed."""


def keep_the_compiler_out() -> None:
    """Import torch's compiler when something is compiled, and not before.

    Without torch, and once the compiler is there, this does nothing.
    """
    try:
        import torch
    except ImportError:
        return  # whoever needs it says so
    spec = importlib.util.find_spec(_COMPILER) if _COMPILER not in sys.modules else None
    if spec is None or spec.submodule_search_locations is None:
        return
    aside: Any = _Aside(_COMPILER)
    aside.__spec__, aside.__file__, aside.__path__ = spec, spec.origin, spec.submodule_search_locations
    sys.meta_path.insert(0, _Below())
    sys.modules[_COMPILER] = aside
    torch._dynamo = aside


def _is_aside() -> bool:
    return isinstance(sys.modules.get(_COMPILER), _Aside)


def _compiler() -> ModuleType:
    """Import the compiler, if it is not there."""
    if _is_aside():
        import torch

        sys.modules.pop(_COMPILER, None)
        vars(torch).pop("_dynamo", None)
        for function in _REMEMBERED:
            vars(function).pop("__dynamo_disable", None)
    return importlib.import_module(_COMPILER)
