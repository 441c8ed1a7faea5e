"""The profile of a job: what was asked for, over its parent's, over what a tuning found, over the machine's cores."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from m1.errors import M1Error
from m1.profile import Chosen, Profile, check_field, impossible, unsound, with_fields
from m1.settings import Value

from m1d.jobs.parent import Parent

# What the drivers of NVIDIA (on a PC, under WSL, on a Jetson) and AMD make.
_CUDA_DEVICES = ("nvidiactl", "dxg", "nvmap", "kfd")
_WHERE = "spec.profile."
_COUNTS_OF_CORES = ("threads", "interop_threads")


def choose_profile(asked: Mapping[str, object], parent: Parent | None, default: Chosen, cores: int) -> Chosen:
    """Choose how the machine runs a job.

    Args:
        asked: the fields that were asked for, as they were given.
        parent: the checkpoint that it begins with; its profile takes the default's place.
        default: the machine's, or what a tuning found.
        cores: how many this process may use.

    Raises:
        M1Error: INVALID_ARGUMENT.
    """
    given = {name: check_field(name, value, _WHERE) for name, value in asked.items()}
    if parent and parent.profile:
        profile = with_fields(default.profile, _inherited(parent.profile, cores))
        default = Chosen(replace(profile, origin="the checkpoint that it begins with"), "parent")
    profile = _sound(with_fields(default.profile, given), given, cores)
    words = f"; {', '.join(sorted(given))} as given" if given else ""
    return replace(default, profile=replace(profile, origin=profile.origin + words))


def _inherited(fields: Mapping[str, Value], cores: int) -> Mapping[str, Value]:
    """A parent's fields, checked, on a machine of perhaps fewer cores: nobody asked for its threads.

    What 0.1.0 did not know is as it always did it, not as this machine would choose: the parent's training goes on
    exactly.
    """
    fitting = {
        name: min(value, cores) if name in _COUNTS_OF_CORES and isinstance(value, int) else value
        for name, value in fields.items()
    }
    checked = {name: check_field(name, value, _WHERE) for name, value in fitting.items()}
    return {"optimizer_dtype": Profile.optimizer_dtype, **checked}


def _sound(profile: Profile, given: Mapping[str, Value], cores: int) -> Profile:
    for name in _COUNTS_OF_CORES:
        count = getattr(profile, name)
        if count > cores:
            raise _impossible(name, count, f"this machine lets m1d use {cores} {'core' if cores == 1 else 'cores'}")
    if profile.device == "mps" and sys.platform != "darwin":
        raise _impossible("device", "mps", "mps is a Mac's GPU and this is not a Mac: use cpu")
    if profile.device == "cuda" and not has_cuda():
        raise _impossible("device", "cuda", "this machine shows no such GPU: use cpu, or mps on a Mac")
    problem = unsound(profile)
    if problem and problem[0] == "memory_format" and "memory_format" not in given:
        profile = replace(profile, memory_format="contiguous")
        problem = unsound(profile)
    if problem:
        raise _impossible(problem[0], getattr(profile, problem[0]), problem[1])
    return profile


def has_cuda(devices: Path = Path("/dev")) -> bool:
    """Return True if the system shows a GPU that torch calls cuda; whether torch can use it, only torch can tell."""
    return any((devices / name).exists() for name in _CUDA_DEVICES)


def _impossible(name: str, value: object, way_out: str) -> M1Error:
    return impossible(name, value, way_out, _WHERE)
