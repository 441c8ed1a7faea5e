"""What can be trained here, as the training process's package describes it, cached by that package's content."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m1.durable import replace_file
from m1.errors import M1Error, Reason, nearest
from m1.settings import Setting

from m1d.process import Tool, training_environment

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """A recipe, as data."""

    name: str
    summary: str
    default_data: str
    settings: Sequence[Setting]
    measures: bool = False
    """It trains nothing and takes no data; its result is findings."""
    package: str = ""
    """The installed package that offers it; empty for one of m1d's own."""


class Recipes:
    """The recipes, described once by a short-lived process."""

    def __init__(self, cache: Path) -> None:
        """Cache in a directory that exists."""
        self._cache = cache
        self._known: dict[str, Recipe] | None = None
        self._lock = asyncio.Lock()

    async def all(self) -> list[Recipe]:
        """By name.

        Raises:
            M1Error: INTERNAL, when the package cannot describe itself.
        """
        async with self._lock:
            if self._known is None:
                self._known = {recipe.name: recipe for recipe in await self._describe()}
        return [self._known[name] for name in sorted(self._known)]

    async def get(self, name: str) -> Recipe:
        """The recipe of a name.

        Raises:
            M1Error: RECIPE_NOT_FOUND.
        """
        known = {recipe.name: recipe for recipe in await self.all()}
        if name not in known:
            raise M1Error(
                Reason.RECIPE_NOT_FOUND,
                f'there is no recipe "{name}"' if name else "no recipe is named",
                nearest(name, known),
                field="spec.recipe",
                value=name,
            )
        return known[name]

    async def _describe(self) -> list[Recipe]:
        cached = self._cache / f"recipes-{_fingerprint()}.json"
        try:
            return _parse(cached.read_bytes())
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError) as error:
            _log.warning('"%s" is not readable and is made again: %s', cached, error)
        async with Tool(["describe"], training_environment(), self._cache / "describe.err") as tool:
            printed = b"".join([line async for line in tool.lines()])
            result = await tool.result()
        if result.status != 0:
            raise M1Error(Reason.INTERNAL, f"m1train describe ended with status {result.status}", result.errors)
        recipes = _parse(printed)
        replace_file(cached, printed, durable=False)
        return recipes


def _parse(document: bytes) -> list[Recipe]:
    return [
        Recipe(
            data["name"],
            data["summary"],
            data["default_data"],
            tuple(Setting.from_json(setting) for setting in data["settings"]),
            data["measures"],
            data.get("package", ""),
        )
        for data in json.loads(document)["recipes"]
    ]


def _fingerprint() -> str:
    """Changes whenever the package, what it shares with us or the interpreter does; imports neither."""
    digest = hashlib.sha256(sys.version.encode())
    for package in ("m1", "m1train"):
        spec = importlib.util.find_spec(package)
        for root in sorted((spec and spec.submodule_search_locations) or ()):
            for file in sorted(Path(root).rglob("*.py")):
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
