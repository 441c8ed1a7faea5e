"""Checking a job before it is stored: everything that can be known without torch."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from m1.datasets import check_source
from m1.errors import M1Error, Reason
from m1.jobdir import Profile
from m1.settings import Value, resolve

from m1d.catalogue.profiles import Profiles
from m1d.catalogue.recipes import Recipe, Recipes
from m1d.jobs.parent import Seed
from m1d.jobs.recipe_file import GivenFile

Purpose = Literal["train", "tune"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ID = re.compile(r"j\d+")
PRIORITY_LIMIT = 1000
DEFAULT_RETRIES = 2
RETRIES_LIMIT = 1000
REQUEST_ID_LIMIT = 128

_DEVICES = ("cpu", "mps", "cuda")
_DTYPES = ("float32", "bfloat16", "float16")
_MEMORY_FORMATS = ("contiguous", "channels_last")
# What the drivers of NVIDIA (on a PC, under WSL, on a Jetson) and AMD make.
_CUDA_DEVICES = ("nvidiactl", "dxg", "nvmap", "kfd")
_THREADS_LIMIT = 1024
_PREFETCH_LIMIT = 64


@dataclass(frozen=True)
class Submission:
    """A job that has been checked."""

    name: str
    """Empty: to be made from the recipe's name."""
    recipe: str
    data: str
    settings: Mapping[str, Value]
    profile: Profile
    priority: int
    retries: int
    from_checkpoint: str
    seed: Seed | None
    file: GivenFile | None = None
    """Where the recipe is the user's own; `recipe` is then its class."""
    purpose: Purpose = "train"
    fixed: Sequence[str] = ()
    """The fields of the profile that were given."""


@dataclass(frozen=True)
class Request:
    """A job as it was asked for."""

    name: str
    recipe: str
    data: str
    settings: Mapping[str, object]
    profile: Mapping[str, str | int]
    """Only what was set."""
    priority: int
    retries: int | None
    from_checkpoint: str
    request_id: str
    purpose: Purpose = "train"
    file: GivenFile | None = None
    """A recipe of the user's own, in place of `recipe`."""


async def check(
    request: Request, seed: Seed | None, recipes: Recipes, data_root: Path, profiles: Profiles
) -> Submission:
    """The job with all its settings resolved; what the request leaves out is as in the seed, if there is one.

    Raises:
        M1Error: what is wrong, with the field and the way out.
    """
    check_torch()
    check_name(request.name)
    if len(request.request_id) > REQUEST_ID_LIMIT:
        raise M1Error(
            Reason.INVALID_ARGUMENT,
            f"request_id has {len(request.request_id)} characters",
            f"at most {REQUEST_ID_LIMIT} are allowed",
            field="request_id",
            value=request.request_id,
        )
    if abs(request.priority) > PRIORITY_LIMIT:
        raise M1Error(
            Reason.INVALID_ARGUMENT,
            f"priority={request.priority} is out of bounds",
            f"priority takes a whole number from {-PRIORITY_LIMIT} to {PRIORITY_LIMIT}",
            field="spec.priority",
            value=str(request.priority),
        )
    retries = DEFAULT_RETRIES if request.retries is None else request.retries
    if retries > RETRIES_LIMIT:
        raise M1Error(
            Reason.INVALID_ARGUMENT,
            f"retries={retries} is out of bounds",
            f"retries takes a whole number from 0 to {RETRIES_LIMIT}",
            field="spec.retries",
            value=str(retries),
        )
    given = {**(seed.settings if seed else {}), **request.settings}
    recipe = await (recipes.of_file(request.file, given) if request.file else recipes.get(request.recipe))
    if request.recipe not in {"", recipe.name}:
        raise M1Error(
            Reason.INVALID_ARGUMENT,
            f'recipe is "{request.recipe}", and the recipe file\'s is "{recipe.name}"',
            "give one of them",
            field="spec.recipe",
            value=request.recipe,
        )
    if seed and seed.recipe and seed.recipe != recipe.name:
        raise M1Error(
            Reason.INVALID_ARGUMENT,
            f'the checkpoint "{request.from_checkpoint}" is of the recipe "{seed.recipe}", not of "{recipe.name}"',
            f"submit {await _known_as(seed.recipe, recipes)}, or begin with another checkpoint",
            field="spec.from_checkpoint",
            value=request.from_checkpoint,
        )
    settings = resolve(recipe.settings, given)
    profile = _profile(request, seed, recipe, profiles)
    data = ""
    if request.purpose == "tune":
        _check_tuning(request, recipe)
    else:
        data = request.data or (seed.data if seed else "") or recipe.default_data
        _check_data(recipe, data, data_root)
    return Submission(
        name=request.name,
        recipe=recipe.name,
        data=data,
        settings=settings,
        profile=profile,
        priority=request.priority,
        retries=retries,
        from_checkpoint=request.from_checkpoint,
        seed=seed,
        purpose=request.purpose,
        fixed=sorted(request.profile),
        file=request.file,
    )


async def _known_as(recipe: str, recipes: Recipes) -> str:
    """How a checkpoint's recipe is submitted: by its name, or by its file, whose name the checkpoint does not say."""
    installed = {known.name for known in await recipes.all()}
    return recipe if recipe in installed else f"./FILE.py, the file with the class {recipe}"


def _profile(request: Request, seed: Seed | None, recipe: Recipe, profiles: Profiles) -> Profile:
    """What was asked for; else the seed's, or what a tuning found; a tuning begins with the machine's own."""
    default = profiles.untuned(bfloat16=recipe.bfloat16)
    if not seed and request.purpose == "train":
        file_sha256 = request.file.sha256 if request.file else ""
        device = str(request.profile.get("device", ""))
        default = profiles.default(recipe.name, file_sha256, device, bfloat16=recipe.bfloat16)
    if seed:
        default = replace(default, **seed.profile)  # type: ignore[arg-type]
    profile = check_profile(request.profile, default)
    given = f"; {', '.join(sorted(request.profile))} as given" if request.profile else ""
    return replace(profile, origin=profile.origin + given)


def _check_tuning(request: Request, recipe: Recipe) -> None:
    if recipe.measures:
        raise M1Error(
            Reason.INVALID_ARGUMENT,
            f'the recipe "{recipe.name}" measures and trains nothing, so there is nothing to tune',
            "tune a recipe that trains",
            field="spec.recipe",
            value=recipe.name,
        )
    for field, value, why in (
        ("data", request.data, "it trains on random images"),
        ("from_checkpoint", request.from_checkpoint, "it learns nothing"),
    ):
        if value:
            raise M1Error(
                Reason.INVALID_ARGUMENT,
                f'{field} is "{value}", and a tuning takes none',
                f"leave it out: {why}",
                field=f"spec.{field}",
                value=value,
            )


def _check_data(recipe: Recipe, data: str, data_root: Path) -> None:
    if not recipe.measures:
        check_source(data_root, data)
    elif data:
        raise M1Error(
            Reason.INVALID_ARGUMENT,
            f'the recipe "{recipe.name}" takes no data, and data is "{data}"',
            "leave the data out",
            field="spec.data",
            value=data,
        )


def check_torch() -> None:
    """Refuse to take a job that could not start. Looks for torch without importing it.

    Raises:
        M1Error: TORCH_MISSING.
    """
    for package in ("torch", "torchvision"):
        if importlib.util.find_spec(package) is None:
            raise M1Error(
                Reason.TORCH_MISSING,
                f"{package} is not installed for {sys.executable}",
                "install what the daemon needs: pip install 'm1d[daemon]'",
            )


def check_name(name: str) -> None:
    """Refuse a name that could be taken for an id or a path; an empty one is fine.

    Raises:
        M1Error: INVALID_NAME.
    """
    if name and (not _NAME.fullmatch(name) or _ID.fullmatch(name)):
        shown = name if len(name) <= 80 else name[:77] + "..."
        raise M1Error(
            Reason.INVALID_NAME,
            f'name "{shown}" is not allowed',
            'a name has 1 to 63 letters, digits, ".", "_" and "-", begins with a letter or a digit,'
            ' and does not look like an id ("j12")',
            field="name",
            value=shown,
        )


def check_profile(given: Mapping[str, str | int], default: Profile) -> Profile:
    """The default, the machine's or a seed's, with what was asked for in its place.

    Raises:
        M1Error: INVALID_ARGUMENT.
    """
    profile = replace(default, **given)  # type: ignore[arg-type]
    for field, value, allowed in (
        ("device", profile.device, _DEVICES),
        ("dtype", profile.dtype, _DTYPES),
        ("memory_format", profile.memory_format, _MEMORY_FORMATS),
    ):
        if value not in allowed:
            raise _profile_error(field, value, f"{field} takes one of {', '.join(allowed)}")
    for field, count in (("threads", profile.threads), ("interop_threads", profile.interop_threads)):
        if not 1 <= count <= _THREADS_LIMIT:
            raise _profile_error(field, str(count), f"{field} takes a whole number from 1 to {_THREADS_LIMIT}")
    if profile.prefetch > _PREFETCH_LIMIT:
        raise _profile_error(
            "prefetch", str(profile.prefetch), f"prefetch takes a whole number from 0 to {_PREFETCH_LIMIT}"
        )
    if profile.dtype == "float16" and profile.device == "cpu":
        raise _profile_error("dtype", "float16", "it is not sound on a CPU: use float32 or bfloat16")
    if profile.device == "mps" and sys.platform != "darwin":
        raise _profile_error("device", "mps", "mps is a Mac's GPU and this is not a Mac: use cpu")
    if profile.device == "cuda" and not has_cuda():
        raise _profile_error("device", "cuda", "this machine shows no such GPU: use cpu, or mps on a Mac")
    if profile.device == "mps" and profile.memory_format == "channels_last":
        if "memory_format" in given:
            # pytorch#175189
            raise _profile_error(
                "memory_format", "channels_last", "BatchNorm's gradients are wrong there on mps: use contiguous"
            )
        profile = replace(profile, memory_format="contiguous")
    return profile


def has_cuda(devices: Path = Path("/dev")) -> bool:
    """Whether the system shows a GPU that torch calls cuda; whether torch can use it, only torch can tell."""
    return any((devices / name).exists() for name in _CUDA_DEVICES)


def _profile_error(field: str, value: str, way_out: str) -> M1Error:
    return M1Error(
        Reason.INVALID_ARGUMENT,
        f'the profile\'s {field}="{value}" is not possible',
        way_out,
        field=f"spec.profile.{field}",
        value=value,
    )
