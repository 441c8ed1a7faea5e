"""Checking a job before it is stored: everything that can be known without torch."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from socket import gethostname

from m1.datasets import check_source
from m1.errors import M1Error, Reason, shortened
from m1.jobdir import checkpoint_path
from m1.limits import DEFAULT_RETRIES, MOST_RETRIES, PRIORITY, REQUEST_ID_CHARACTERS, SETTINGS_BYTES
from m1.profile import Chosen
from m1.settings import Value, resolve
from m1.spec import JobKind, JobSpec, Program

from m1d.catalogue.choose_profile import choose_profile
from m1d.catalogue.profiles import Profiles
from m1d.catalogue.recipes import RecipeInfo, Recipes
from m1d.jobs.names import check_name
from m1d.jobs.parent import Parent, check_something_left, read_parent
from m1d.jobs.recipe_file import RecipeUpload
from m1d.processes.blocking import look_at
from m1d.verbs.find import find_checkpoint
from m1d.verbs.parts import Parts
from m1d.verbs.submit.program import check_program, program_spec


@dataclass(frozen=True, kw_only=True)
class Request:
    """A job as it was asked for."""

    name: str = ""
    request_id: str = ""
    recipe: str = ""
    upload: RecipeUpload | None = None
    """A recipe of the user's own, in place of `recipe`."""
    program: Program | None = None
    """In place of a recipe."""
    tuning: bool = False
    data: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)
    profile: Mapping[str, object] = field(default_factory=dict)
    """Only what was set."""
    priority: int = 0
    retries: int | None = None
    from_checkpoint: str = ""


@dataclass(frozen=True)
class Plan:
    """A job that has been checked."""

    name: str
    """Empty: to be made from the recipe's name."""
    request_id: str
    spec: JobSpec
    asked: Sequence[str]
    """The fields of the profile that were asked for."""
    parent: Parent | None
    upload: RecipeUpload | None
    words: str = ""
    """What was chosen by this machine's speed, if anything was."""


async def make_plan(parts: Parts, request: Request) -> Plan:
    """Check a request; what it leaves out is as in the parent, if there is one, or as the recipe has it.

    Raises:
        M1Error: what is wrong, with the field and the way out.
    """
    check_name(request.name)
    _check_bounds(request)
    if request.program:
        return await _plan_program(parts, request, request.program)
    _check_torch()
    parent = await _find_parent(parts, request.from_checkpoint)
    wanted = {**(parent.settings if parent else {}), **request.settings}
    data = request.data or (parent.data if parent else "")
    recipe = await _find_recipe(parts.recipes, request, wanted, data)
    if parent and parent.recipe and parent.recipe != recipe.name:
        raise await _another_recipe(request, parent, recipe, parts.recipes)
    settings = resolve(recipe.settings, wanted)
    kind = _kind(request, recipe)
    default = _default_profile(parts.profiles, request, recipe, tuned=kind != "tuning" and not parent)
    chosen = choose_profile(request.profile, parent, default, parts.profiles.cores)
    if kind == "tuning":
        data = ""
    elif kind == "training":
        data = data or recipe.default_data
    await _check_data(recipe, kind, data, settings, parts.home.data)
    if parent:
        check_something_left(parent, data, settings)
    spec = JobSpec(
        kind=kind,
        recipe=recipe.name,
        data=data,
        settings=settings,
        profile=chosen.profile,
        profile_source=chosen.source,
        profile_stale=chosen.stale,
        priority=request.priority,
        retries=DEFAULT_RETRIES if request.retries is None else request.retries,
        from_checkpoint=request.from_checkpoint,
        recipe_file=request.upload.of_class(recipe.name) if request.upload else None,
        fixed=sorted(request.profile) if kind == "tuning" else (),
        metrics=recipe.metrics if kind == "training" else (),
        sample_unit=recipe.sample_unit,
    )
    return Plan(request.name, request.request_id, spec, sorted(request.profile), parent, request.upload)


async def _plan_program(parts: Parts, request: Request, program: Program) -> Plan:
    for name, given in (
        ("recipe", request.recipe or request.upload),
        ("data", request.data),
        ("settings", request.settings),
        ("profile", request.profile),
        ("from_checkpoint", request.from_checkpoint),
        ("purpose", request.tuning),
    ):
        if given:
            raise _refused(f"spec.{name}", "", f"{name} is given, and a program takes none", "leave it out")
    await check_program(program, parts.environment)
    spec = program_spec(program, parts.profiles.untuned(), request.priority, request.retries)
    return Plan(request.name, request.request_id, spec, (), None, None)


def _default_profile(profiles: Profiles, request: Request, recipe: RecipeInfo, *, tuned: bool) -> Chosen:
    """The profile of a job that asks for nothing: what a tuning found, if that is wanted, or the machine's own."""
    if not tuned:
        return Chosen(profiles.untuned(bfloat16=recipe.bfloat16), "default")
    sha256 = request.upload.sha256 if request.upload else ""
    device = str(request.profile.get("device", ""))
    return profiles.default(recipe.name, sha256, device, bfloat16=recipe.bfloat16)


def _check_torch() -> None:
    """Refuse to take a job that could not start. Looks for torch without importing it."""
    if importlib.util.find_spec("torch") is None:
        raise M1Error(
            Reason.TORCH_MISSING,
            f"torch is not installed for {sys.executable}",
            "install what the daemon needs: pip install 'm1d[daemon]'",
        )


def _check_bounds(request: Request) -> None:
    if len(request.request_id) > REQUEST_ID_CHARACTERS:
        message = f"request_id has {len(request.request_id)} characters"
        raise _refused("request_id", request.request_id, message, f"at most {REQUEST_ID_CHARACTERS} are allowed")
    size_bytes = sum(len(f"{name}{value}".encode(errors="replace")) for name, value in request.settings.items())
    if size_bytes > SETTINGS_BYTES:
        message = f"the settings have {size_bytes} bytes"
        raise M1Error(Reason.TOO_LARGE, message, f"{SETTINGS_BYTES} are allowed in all", field="spec.settings")
    if abs(request.priority) > PRIORITY:
        way_out = f"priority takes a whole number from {-PRIORITY} to {PRIORITY}"
        message = f"priority={request.priority} is out of bounds"
        raise _refused("spec.priority", str(request.priority), message, way_out)
    if request.retries is not None and request.retries > MOST_RETRIES:
        way_out = f"retries takes a whole number from 0 to {MOST_RETRIES}"
        raise _refused("spec.retries", str(request.retries), f"retries={request.retries} is out of bounds", way_out)


async def _find_parent(parts: Parts, reference: str) -> Parent | None:
    """The checkpoint that a job shall begin with, by id or by the absolute path of its directory; None for ""."""
    if not reference:
        return None
    if os.path.isabs(reference):
        source = Path(reference)
    else:
        job, checkpoint = find_checkpoint(parts, reference)
        if job.kind == "program":
            message = f'from_checkpoint is "{reference}", which is a program\'s own'
            way_out = f"m1ctl retry {job.name} goes on from it"
            raise _refused("spec.from_checkpoint", reference, message, way_out)
        source = checkpoint_path(parts.home.job(job.id), checkpoint.step)
    return await look_at(str(source), read_parent, source)


async def _find_recipe(recipes: Recipes, request: Request, settings: Mapping[str, object], data: str) -> RecipeInfo:
    if request.upload is None:
        return await recipes.get(request.recipe)
    recipe = await recipes.of_file(request.upload, settings, data)
    if request.recipe not in {"", recipe.name}:
        shown = shortened(request.recipe)
        message = f'recipe is "{shown}", and the recipe file\'s is "{recipe.name}"'
        raise _refused("spec.recipe", request.recipe, message, "give one of them")
    return recipe


async def _another_recipe(request: Request, parent: Parent, recipe: RecipeInfo, recipes: Recipes) -> M1Error:
    installed = {known.name for known in await recipes.all()}
    # A checkpoint does not say what the file of its recipe was called.
    known_as = parent.recipe if parent.recipe in installed else f"./FILE.py, the file with the class {parent.recipe}"
    checkpoint = request.from_checkpoint
    message = f'the checkpoint "{checkpoint}" is of the recipe "{parent.recipe}", not of "{recipe.name}"'
    return _refused("spec.from_checkpoint", checkpoint, message, f"submit {known_as}, or begin with another checkpoint")


def _kind(request: Request, recipe: RecipeInfo) -> JobKind:
    if not request.tuning:
        return recipe.kind
    if recipe.measures or recipe.reads_data:
        why = "measures and trains nothing, so there is nothing to tune"
        if recipe.reads_data:
            why = "reads its data itself, and a tuning trains on random samples"
        raise _refused("spec.recipe", recipe.name, f'the recipe "{recipe.name}" {why}', "tune another recipe")
    for name, value, why in (
        ("data", request.data, "it trains on random samples"),
        ("from_checkpoint", request.from_checkpoint, "it learns nothing"),
    ):
        if value:
            message = f'{name} is "{shortened(value)}", and a tuning takes none'
            raise _refused(f"spec.{name}", value, message, f"leave it out: {why}")
    return "tuning"


async def _check_data(
    recipe: RecipeInfo, kind: JobKind, data: str, settings: Mapping[str, Value], data_root: Path
) -> None:
    if kind == "measurement" and data:
        message = f'the recipe "{recipe.name}" takes no data, and data is "{shortened(data)}"'
        raise _refused("spec.data", data, message, "leave the data out")
    if kind != "training":
        return
    if not (data or recipe.reads_data):
        message = f'the recipe "{recipe.name}" has no data of its own'
        raise M1Error(Reason.INVALID_ARGUMENT, message, "name some with --data", field="spec.data")
    if not recipe.reads_data:
        needs = [need.with_settings(settings) for need in recipe.needs]
        await look_at(data, check_source, data_root, data, needs)
    elif not (os.path.isabs(data) and await look_at(data, os.path.exists, data)):
        problem = f'data="{shortened(data)}" is not a path on {gethostname()}'
        message = f'the recipe "{recipe.name}" reads its data itself, and {problem}'
        raise M1Error(
            Reason.DATASET_NOT_FOUND, message, "give the path of a file or a folder", field="data", value=data
        )


def _refused(where: str, value: str, message: str, way_out: str) -> M1Error:
    return M1Error(Reason.INVALID_ARGUMENT, message, way_out, field=where, value=value)
