"""The parts of the daemon that its verbs work with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from m1.paths import Home

from m1d.catalogue.plans import Planners
from m1d.catalogue.profiles import Profiles
from m1d.catalogue.recipes import Recipes
from m1d.events.hub import Hub
from m1d.running.supervisor import Supervisor
from m1d.store import Store


@dataclass(frozen=True)
class Parts:
    """The first argument of every verb. Used from the event loop's thread."""

    home: Home
    store: Store
    hub: Hub
    supervisor: Supervisor
    recipes: Recipes
    profiles: Profiles
    planners: Planners
    clock: Callable[[], float]
    """Seconds since the epoch."""
    environment: Mapping[str, str]
    """What of the daemon's environment reaches a process."""
