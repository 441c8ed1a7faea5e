"""`m1train plan`: choose a recipe's settings by how fast this machine trains it, before the job is stored.

Torch is imported only where something is to be measured.
"""

from __future__ import annotations

import importlib
import json
import os
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from m1.errors import ExitCode, M1Error, Reason
from m1.jobdir import Profile
from m1.typed import parsed, record

from m1train.catalogue import declaration, load
from m1train.task.planning import Counts, Pace, Planned
from m1train.task.settings import Declaration, resolved


def plan_settings(recipe: str, settings: str, profile: str, counts: Counts) -> int:
    """Print what a recipe's planner chooses as one line of JSON, or the error that it has.

    Args:
        recipe: its name.
        settings: a JSON file of the job's settings; empty: their defaults.
        profile: a JSON file of the profile that the job will have; empty: the default's.
        counts: how many samples its data have, as far as that is known.
    """
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    try:
        said = planned(declaration(recipe), settings, profile, counts).to_json()
    except M1Error as error:
        traceback.print_exception(error)
        said = {"error": {**asdict(error), "reason": error.reason.value}}
    with answer:
        answer.write(json.dumps(said) + "\n")
    return ExitCode.OK


def planned(declared: Declaration, settings: str, profile: str, counts: Counts) -> Planned:
    """Ask a recipe's planner; one without a planner has nothing to choose.

    Raises:
        M1Error: INVALID_SETTING, or what the profile's or the machine's trouble is.
    """
    config = resolved(declared.config, parsed(Path(settings).read_bytes()) if settings else {})
    if not declared.planner:
        return Planned()
    module, _, function = declared.planner.partition(":")
    choose: Callable[[object, Counts, Callable[[], Pace]], Planned] = getattr(importlib.import_module(module), function)
    return choose(config, counts, lambda: _pace(declared, profile))


def _pace(declared: Declaration, profile: str) -> Pace:
    from m1train.engine import device
    from m1train.engine.pace import MeasuredPace

    try:
        chosen = record(Profile, parsed(Path(profile).read_bytes())) if profile else Profile()
    except ValueError as error:
        message = f'"{profile}" holds no profile ({error})'
        raise M1Error(Reason.INVALID_ARGUMENT, message, field="profile", value=profile) from error
    return MeasuredPace(lambda config: load(declared, asdict(config)), device.set_up(chosen))
