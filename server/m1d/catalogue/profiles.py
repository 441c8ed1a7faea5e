"""The profiles that `m1ctl tune` found, each with the numbers behind it: one file a recipe, in the home's `profiles/`.

A job that is submitted begins with the one of its recipe; one that was submitted before keeps its own. A profile is the
machine's that it was measured on. When what else it was measured under has changed (torch, the source of the power) it
still serves, and says that the recipe should be tuned again: that is for a person to do.

A file that cannot be read is set aside and reported, and the machine's default serves.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import quote

from m1 import typed
from m1.durable import read_regular, replace_file
from m1.journal import Finding, Findings
from m1.power import power_source
from m1.profile import Chosen, Profile

from m1d.jobs.job import Job
from m1d.machine.topology import Topology, default_threads

_log = logging.getLogger(__name__)

UNTUNED = "the machine's cores"
_FILE_DIGITS = 12


@dataclass(frozen=True)
class Tuned:
    """What a tuning found."""

    job: str
    time: float
    """Seconds since the epoch."""
    profile: Profile
    conditions: Mapping[str, str]
    """What it was found under: "torch", "power", "machine"."""
    findings: Sequence[Finding]

    @property
    def words(self) -> str:
        """Where its numbers are from: "m1ctl tune on 2026-11-22 (j12): 2.1 x the default"."""
        date = datetime.datetime.fromtimestamp(self.time).astimezone().date().isoformat()
        factor = next((finding.value for finding in self.findings if finding.key == "factor"), None)
        gain = f"{factor:.2g} x the default" if factor else "nothing is faster than the default"
        return f"m1ctl tune on {date} ({self.job}): {gain}"


class Profiles:
    """The default profile of each recipe on this machine."""

    def __init__(self, directory: Path, topology: Topology, conditions: Callable[[], Mapping[str, str]]) -> None:
        """`conditions` tells what may change from one submit to the next; the directory need not exist."""
        self._directory = directory
        self._machine = machine_words(topology)
        self._conditions = conditions
        self._topology = topology

    @property
    def cores(self) -> int:
        """The cores that this process may use, as the system counts them: threads of them, too."""
        return sum(kind.logical_cores for kind in self._topology.core_kinds)

    def untuned(self, *, bfloat16: bool = False) -> Profile:
        """The CPU's fastest cores, one operator at a time; in bfloat16 if that is meant and the processor has it."""
        dtype = "bfloat16" if bfloat16 and self._topology.bfloat16 else "float32"
        threads = min(default_threads(self._topology), self.cores)
        return self.following_the_processor(Profile(threads=threads, dtype=dtype, origin=UNTUNED))

    def following_the_processor(self, profile: Profile) -> Profile:
        """Have the optimizer compute in float32 on a processor that emulates bfloat16."""
        emulates = profile.device == "cpu" and not self._topology.bfloat16
        return replace(profile, optimizer_dtype="float32") if emulates else profile

    def keep(self, job: Job, found: Findings, time: float) -> None:
        """Store what a tuning found, durably; the same again changes nothing.

        Raises:
            OSError: the disk refuses.
        """
        if found.profile is None:
            return
        conditions = {**found.conditions, "machine": self._machine}
        tuned = Tuned(job.id, time, replace(found.profile, origin=""), conditions, found.findings)
        self._directory.mkdir(mode=0o700, exist_ok=True)
        sha256 = job.spec.recipe_file.sha256 if job.spec.recipe_file else ""
        replace_file(self._path(job.spec.recipe, sha256), json.dumps(asdict(tuned), indent=1).encode(), durable=True)

    def default(self, recipe: str, file_sha256: str = "", device: str = "", *, bfloat16: bool = False) -> Chosen:
        """The profile of a job that asks for nothing, or for no more than a device.

        Args:
            recipe: its name.
            file_sha256: where the recipe is a user's own.
            device: what was measured on another one says nothing of it; "" is any.
            bfloat16: what the recipe is meant for.
        """
        path, untuned = self._path(recipe, file_sha256), self.untuned(bfloat16=bfloat16)
        tuned = self._read(path)
        if tuned is None:
            aside = _set_aside(path)
            return Chosen(untuned, "default", [f'"{aside}" could not be read'] if aside.exists() else [])
        if tuned.conditions.get("machine") != self._machine:
            was = tuned.conditions.get("machine", "unknown")
            return Chosen(untuned, "default", [f"the machine was {was}, is {self._machine}"])
        if device not in {"", tuned.profile.device}:
            return Chosen(untuned, "default", [])
        now = self._conditions()
        changed = [
            f"{k} was {was}, is {now[k]}" for k, was in sorted(tuned.conditions.items()) if now.get(k, was) != was
        ]
        profile = self.following_the_processor(replace(tuned.profile, origin=tuned.words))
        return Chosen(profile, "tuned", changed)

    def _read(self, path: Path) -> Tuned | None:
        try:
            return typed.record(Tuned, typed.parsed(read_regular(path)))
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.error('the tuned profile "%s" cannot be read (%s): the default serves', path, error)
        except ValueError as error:
            _log.error('the tuned profile "%s" is damaged (%s): it is set aside, and the default serves', path, error)
            os.replace(path, _set_aside(path))
        return None

    def _path(self, recipe: str, file_sha256: str) -> Path:
        key = f"{recipe}@{file_sha256[:_FILE_DIGITS]}" if file_sha256 else recipe
        return self._directory / f"{quote(key, safe='@')}.json"


def current_conditions() -> Mapping[str, str]:
    """What a tuned profile depends on, and changes without the machine being another one."""
    import psutil

    try:
        torch = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        torch = "not installed"
    return {"torch": torch, "power": power_source(psutil)}


def machine_words(topology: Topology) -> str:
    """The machine, as far as a profile depends on it: "Apple M1, 4 performance and 4 efficiency cores"."""
    kinds = " and ".join(
        f"{kind.physical_cores} {kind.name}"
        + (f" ({kind.logical_cores} threads)" if kind.logical_cores != kind.physical_cores else "")
        for kind in topology.core_kinds
    )
    return f"{topology.cpu}, {kinds} cores"


def _set_aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.damaged")
