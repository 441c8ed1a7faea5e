"""The recipes that installed packages offer: entry points of the group `m1d.recipes`, with the value `module:Class`.

Listing them imports nothing of theirs; the training process's package loads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "m1d.recipes"


@dataclass(frozen=True)
class InstalledRecipe:
    """What a package says that it has."""

    name: str
    value: str
    package: str
    version: str


def installed_recipes() -> list[InstalledRecipe]:
    """By name; of two packages that offer the same one the first counts."""
    from importlib.metadata import entry_points

    found = [_of(entry) for entry in entry_points(group=GROUP)]
    return sorted(found, key=lambda recipe: (recipe.name, recipe.package))


def _of(entry: EntryPoint) -> InstalledRecipe:
    package, version = (entry.dist.name, entry.dist.version) if entry.dist else ("", "")
    return InstalledRecipe(entry.name, entry.value, package or "unknown", version or "unknown")
