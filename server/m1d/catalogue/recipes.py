"""What can be trained here, as short-lived processes of the training package describe it.

Our own recipes are described together. What an installed package offers, and a user's own file, is foreign code: each
has a process of its own, with a time limit, and the daemon runs none of it. The catalogue is cached by the content of
our package and by the names and versions of the others; a package that is broken is left out, and the log says why.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m1.columns import Need, needs_from_json
from m1.durable import replace_file
from m1.errors import M1Error, Reason, nearest
from m1.installed import InstalledRecipe, installed_recipes
from m1.metrics import Metric
from m1.settings import Setting
from m1.spec import JobKind

from m1d.jobs.recipe_file import RecipeUpload, check_file
from m1d.processes.blocking import look_at
from m1d.processes.environment import training_environment
from m1d.processes.tool import Tool

# How long foreign code may take to be described; importing torch is most of it, on a machine that is busy.
LIMIT_S = 60.0
_MOST_CHECKED_FILES = 64
# Files that are checked at the same time: each imports torch, and one that never ends leaves room for others.
_MOST_CHECKS = 4

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UseInfo:
    """Something that can be done with what a recipe has trained."""

    name: str
    summary: str
    options: Sequence[Setting]
    inputs: str
    """What it takes: "files", or nothing."""


@dataclass(frozen=True)
class RecipeInfo:
    """A recipe, as data."""

    name: str
    summary: str
    default_data: str
    settings: Sequence[Setting]
    bfloat16: bool = False
    """It is meant to be trained in bfloat16, where the processor has instructions for it."""
    measures: bool = False
    """It trains nothing and takes no data; its result is findings."""
    package: str = ""
    """The installed package that offers it; empty for one of m1d's own."""
    needs: Sequence[Need] = ()
    """The columns of data that it learns from; none where it takes no data, or reads its data itself."""
    metrics: Sequence[Metric] = ()
    sample_unit: str = ""
    reads_data: bool = False
    """It reads its data itself, whatever their form."""
    uses: Sequence[UseInfo] = ()
    plans: bool = False
    """It leaves settings to this machine's speed: see m1d.catalogue.plans."""

    @property
    def kind(self) -> JobKind:
        """What a job of it is, unless it is tuned."""
        return "measurement" if self.measures else "training"


class Recipes:
    """The recipes, described once by a short-lived process."""

    def __init__(self, cache: Path, environment: Mapping[str, str], limit_s: float = LIMIT_S) -> None:
        """Cache in a directory that exists; `environment` is what of the daemon's reaches a process."""
        self._cache = cache
        self._environment = environment
        self._limit_s = limit_s
        self._known: dict[str, RecipeInfo] | None = None
        self._checked: dict[tuple[str, str, str, str, str], RecipeInfo] = {}
        self._describing = asyncio.Lock()
        self._checks = asyncio.Semaphore(_MOST_CHECKS)

    async def all(self) -> list[RecipeInfo]:
        """By name.

        Raises:
            M1Error: INTERNAL, when the package cannot describe itself.
        """
        async with self._describing:
            if self._known is None:
                self._known = {recipe.name: recipe for recipe in await self._describe()}
        return [self._known[name] for name in sorted(self._known)]

    async def get(self, name: str) -> RecipeInfo:
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

    async def of_file(self, file: RecipeUpload, settings: Mapping[str, object], data: str = "") -> RecipeInfo:
        """The recipe in a user's file, which has trained its first step with these settings.

        `data` is what one that reads its data itself is tried with, where it is a path that exists.

        Raises:
            M1Error: BAD_RECIPE, INVALID_SETTING, INVALID_ARGUMENT or TOO_LARGE.
        """
        check_file(file)
        given = json.dumps(settings)
        path = data if os.path.isabs(data) and await look_at(data, os.path.exists, data) else ""
        key = (file.sha256, file.name, file.class_name, given, path)
        if key not in self._checked:
            async with self._checks:
                recipe = self._checked.get(key) or _recipe(await self._check(file, given, path))
            if len(self._checked) >= _MOST_CHECKED_FILES:
                self._checked.clear()
            self._checked[key] = recipe
        return self._checked[key]

    async def _check(self, file: RecipeUpload, settings: str, data: str) -> Mapping[str, Any]:
        with tempfile.TemporaryDirectory(prefix="check-", dir=self._cache, ignore_cleanup_errors=True) as directory:
            path, given = Path(directory, file.name), Path(directory, "settings.json")
            path.write_bytes(file.content)
            given.write_text(settings)
            arguments = ["describe", "--file", str(path), "--class", file.class_name, "--settings", str(given)]
            arguments += ["--data", data] if data else []
            return await self._ask(arguments, file.name, Path(directory, "errors"))

    async def _describe(self) -> list[RecipeInfo]:
        installed = installed_recipes()
        cached = self._cache / f"recipes-{_fingerprint(installed)}.json"
        try:
            return _parse(cached.read_bytes())
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError) as error:
            _log.warning('"%s" is not readable and is made again: %s', cached, error)
        errors = self._cache / "describe.err"
        async with Tool(["describe"], training_environment(self._environment), errors) as tool:
            printed = b"".join([line async for line in tool.lines()])
            result = await tool.result()
        if result.status != 0:
            raise M1Error(Reason.INTERNAL, f"m1train describe ended with status {result.status}", result.errors)
        described: list[Mapping[str, Any]] = json.loads(printed)["recipes"]
        broken = False
        for offered in installed:
            try:
                if any(recipe["name"] == offered.name for recipe in described):
                    raise M1Error(Reason.NAME_TAKEN, f'there is a recipe "{offered.name}" already', "rename one")
                described.append(await self._ask(["describe", "--installed", offered.name], offered.package, errors))
            except M1Error as error:
                if error.reason is Reason.PROCESS_NOT_STARTED:
                    raise
                broken = True
                _log.warning('the recipe "%s" of the package %s is left out: %s', offered.name, offered.package, error)
        document = json.dumps({"recipes": described}).encode()
        if not broken:  # a package may be mended without a new version
            replace_file(cached, document, durable=False)
        return _parse(document)

    async def _ask(self, arguments: Sequence[str], whose: str, errors: Path) -> Mapping[str, Any]:
        """What a process says of foreign code.

        Raises:
            M1Error: what it says is wrong; BAD_RECIPE when it says nothing, or nothing that can be understood.
        """
        environment = training_environment(self._environment, 1)
        try:
            async with asyncio.timeout(self._limit_s), Tool(arguments, environment, errors) as tool:
                line = await tool.line()
                if not line.endswith(b"\n"):
                    result = await tool.result()
                    if result.oom:
                        message = f"{whose}: the process that checked it was killed for want of memory"
                        hint = "take a smaller batch_size or model, or close something large"
                        raise M1Error(Reason.OUT_OF_MEMORY, message, hint, field="spec.recipe_file")
                    problem = f"it ended the process that checked it ({_ending(result.status)})"
                    raise _bad(whose, problem, "a recipe may not end the process that it runs in")
            return _said(line)
        except TimeoutError:
            problem = f"importing it and training its first step took longer than {self._limit_s:g} s"
            raise _bad(whose, problem, "look for what waits or never ends in it") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            problem = "something else was written where the process that checked it writes its answer"
            raise _bad(whose, problem, "a recipe may write to its standard output and to files that it opens") from None


def _bad(whose: str, problem: str, hint: str) -> M1Error:
    return M1Error(Reason.BAD_RECIPE, f"{whose}: {problem}", hint, field="spec.recipe_file")


def _said(line: bytes) -> Mapping[str, Any]:
    """The recipe of an answer.

    Raises:
        M1Error: the answer is an error.
        ValueError, KeyError, TypeError, RecursionError: it is no answer.
    """
    said = json.loads(line)
    json.dumps(said, ensure_ascii=False).encode()  # half a surrogate pair can be neither stored nor sent
    if "error" in said:
        texts = (str(said["error"][name]) for name in ("message", "hint", "field", "value"))
        raise M1Error(Reason(said["error"]["reason"]), *texts)
    recipe: Mapping[str, Any] = said["recipe"]
    _recipe(recipe)
    return recipe


def _ending(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def _parse(document: bytes) -> list[RecipeInfo]:
    return [_recipe(data) for data in json.loads(document)["recipes"]]


def _recipe(data: Mapping[str, Any]) -> RecipeInfo:
    measures = bool(data["measures"])
    return RecipeInfo(
        name=data["name"],
        summary=data["summary"],
        default_data=data["default_data"],
        settings=tuple(Setting.from_json(setting) for setting in data["settings"]),
        bfloat16=data["bfloat16"],
        measures=measures,
        package=data["package"],
        needs=() if measures else needs_from_json(data["needs"]),
        metrics=() if measures else tuple(Metric.from_json(metric) for metric in data["metrics"]),
        sample_unit="" if measures else data["sample_unit"],
        reads_data=data["reads_data"],
        uses=tuple(_use(use) for use in data["uses"]),
        plans=data["plans"],
    )


def _use(data: Mapping[str, Any]) -> UseInfo:
    options = tuple(Setting.from_json(option) for option in data["options"])
    return UseInfo(data["name"], data["summary"], options, data["inputs"])


def _fingerprint(installed: Sequence[InstalledRecipe]) -> str:
    """Changes whenever the package, what it shares with us, the interpreter or what others offer does; imports none."""
    digest = hashlib.sha256(f"{sys.version} {installed}".encode())
    for package in ("m1", "m1train"):
        spec = importlib.util.find_spec(package)
        for root in sorted((spec and spec.submodule_search_locations) or ()):
            for file in sorted(Path(root).rglob("*.py")):
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
