"""`m1train plan`: choose a recipe's settings by how fast this machine trains it, before the job is stored.

Torch is imported only where something is to be measured.
"""

from __future__ import annotations

import importlib
import json
import os
import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from m1.errors import ExitCode, M1Error, Reason
from m1.jobdir import Profile
from m1.typed import parsed, record

from m1train.catalogue import declaration, load
from m1train.task.planning import Choosing, Counts, Pace, Planned
from m1train.task.settings import Declaration, resolved


def plan_settings(recipe: str, settings: str, profile: str, counts: Counts, choosing: Choosing, beside: str) -> int:
    """Print what a recipe's planner chooses as one line of JSON, or the error that it has.

    Args:
        recipe: its name.
        settings: a JSON file of the job's settings; empty: their defaults.
        profile: a JSON file of the profile that the job will have; empty: the default's.
        counts: how many samples its data have, as far as that is known.
        choosing: when the choice is made; not now: what is wrong is refused all the same.
        beside: the job that holds the machine meanwhile; where something is measured, it is said beside which.
    """
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    with answer:
        answer.write(json.dumps(_answer(recipe, settings, profile, counts, choosing, beside)) + "\n")
    return ExitCode.OK


def _answer(
    recipe: str, settings: str, profile: str, counts: Counts, choosing: Choosing, beside: str
) -> dict[str, object]:
    measured: list[Pace] = []

    def note() -> str:
        return f"; measured beside {beside}, which held the machine" if beside and measured else ""

    try:
        declared = declaration(recipe)

        def pace() -> Pace:
            measured.append(_pace(declared, profile))
            return measured[0]

        chosen = planned(declared, settings, counts, pace, choosing)
        return replace(chosen, words=chosen.words + note()).to_json()
    except M1Error as error:
        traceback.print_exception(error)
        return {"error": {**asdict(error), "reason": error.reason.value, "hint": error.hint + note()}}


def planned(
    declared: Declaration, settings: str, counts: Counts, pace: Callable[[], Pace], choosing: Choosing
) -> Planned:
    """Ask a recipe's planner; one without a planner has nothing to choose.

    Raises:
        M1Error: INVALID_SETTING, or what the profile's or the machine's trouble is.
    """
    config = resolved(declared.config, parsed(Path(settings).read_bytes()) if settings else {})
    if not declared.planner:
        return Planned()
    module, _, function = declared.planner.partition(":")
    choose = getattr(importlib.import_module(module), function)
    chosen: Planned = choose(config, counts, pace, choosing)
    return chosen


def _pace(declared: Declaration, profile: str) -> Pace:
    from m1train.engine import device
    from m1train.engine.pace import MeasuredPace

    try:
        chosen = record(Profile, parsed(Path(profile).read_bytes())) if profile else Profile()
    except ValueError as error:
        message = f'"{profile}" holds no profile ({error})'
        raise M1Error(Reason.INVALID_ARGUMENT, message, field="profile", value=profile) from error
    return MeasuredPace(lambda config: load(declared, asdict(config)), device.set_up(chosen))
