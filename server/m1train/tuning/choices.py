"""What a tuning may choose on this machine: the values of each field of a profile, where they are sound.

What is known to be wrong on a device is not offered. What could be asked for and is not measured is named, with why.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch
from m1.jobdir import Profile
from m1.processor import this_one_has_bfloat16
from m1.readings import optional

from m1train.engine.device import devices

# In the order of the effect that is expected of them, so that what comes later is measured on what was chosen before.
FIELDS = (
    "device",
    "dtype",
    "memory_format",
    "threads",
    "fused",
    "prefetch",
    "nnpack",
    "compile",
    "interop_threads",
)
_MOST_PREFETCH = 2


@dataclass(frozen=True)
class Machine:
    """What decides what is offered."""

    devices: Sequence[str]
    bfloat16: bool
    """The processor has instructions for it."""
    threads: Sequence[int]
    """Counts that are worth a look, besides the default's."""
    nnpack: bool


@dataclass(frozen=True)
class Choice:
    """A profile that differs from another in a field."""

    profile: Profile
    problem: str = ""
    """Why it is not measured."""


def read_machine(profile: Profile) -> Machine:
    """This machine. The default profile's threads are the fastest cores that are to be had."""
    logical = psutil.cpu_count() or 1
    if sys.platform == "linux":
        logical = len(os.sched_getaffinity(0))
    cores: int | None = optional(lambda: psutil.cpu_count(logical=False))
    physical = min(logical, cores or logical)
    counts = {logical, physical, max(1, profile.threads // 2)}
    nnpack = torch.backends.nnpack.is_available()  # type: ignore[no-untyped-call]
    return Machine(devices(), this_one_has_bfloat16(), sorted(counts), nnpack)


def choices(field: str, now: Profile, machine: Machine) -> list[Choice]:
    """What may be tried in the place of a field's value."""

    def each(*values: object, problem: str = "") -> list[Choice]:
        return [Choice(_changed(now, field, value), problem) for value in values if value != getattr(now, field)]

    on_cpu = now.device == "cpu"
    match field:
        case "device":
            return each(*machine.devices)
        case "dtype" if on_cpu:
            problem = "" if machine.bfloat16 else "this processor has no instructions for it"
            return each("float32") + each("bfloat16", problem=problem)
        case "dtype":
            return each("float32", "bfloat16", "float16")
        case "memory_format" if now.device != "mps":
            return each("channels_last", "contiguous")
        case "threads" if on_cpu:
            return each(*machine.threads)
        case "fused":
            return each(not now.fused)
        case "prefetch":  # two ahead only after one was a gain
            return each(min(now.prefetch + 1, _MOST_PREFETCH))
        case "nnpack" if on_cpu and machine.nnpack:
            return each(not now.nnpack)
        case "compile":
            return each(not now.compile)
        case "interop_threads":
            return each(now.interop_threads + 1, problem="a training step has one operator to run at a time")
    return []


def _changed(now: Profile, field: str, value: object) -> Profile:
    changes: dict[str, Any] = {field: value}
    if value == "mps":
        changes["memory_format"] = "contiguous"
    return replace(now, **changes)
