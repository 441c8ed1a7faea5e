"""The settings that a job leaves to the machine's speed: measured at the submit, and stored, so that they stay."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from m1.datasets import cached_datasets

from m1d.catalogue.plans import Choosing
from m1d.verbs.parts import Parts
from m1d.verbs.submit.plan import Plan


async def choose_settings(parts: Parts, plan: Plan, *, only_check: bool) -> Plan:
    """Give the plan with the settings that its recipe's planner chose, and with the planner's words.

    A job that begins with a checkpoint goes on with that one's settings, and nothing is chosen for it. Where a job is
    only checked, perhaps before its data are read, nothing is measured, and what was not given is not chosen yet.

    Raises:
        M1Error: INVALID_SETTING, for what cannot be trained in the time that the settings allow.
    """
    spec = plan.spec
    if spec.kind != "training" or spec.recipe_file or not (await parts.recipes.get(spec.recipe)).plans:
        return plan
    rows = await asyncio.to_thread(_rows, parts, spec.data)
    active = parts.supervisor.active()
    beside = f"{active.id} ({active.name})" if active else ""
    choose: Choosing = "never" if plan.parent else "later" if only_check else "now"
    choice = await parts.planners.ask(spec, rows, choose=choose, beside=beside)
    if not choice.settings:
        return plan
    chosen = {name: value for name, value in choice.settings.items() if value != spec.settings[name]}
    settled = replace(spec, settings={**spec.settings, **chosen}, planned=sorted(chosen))
    return replace(plan, spec=settled, words=choice.words)


def _rows(parts: Parts, data: str) -> Mapping[str, int]:
    """How many samples the newest reading of a dataset has, by split; nothing where it has not been read."""
    readings = [dataset for dataset in cached_datasets(parts.home.data) if dataset.name == data]
    return max(readings, key=lambda dataset: dataset.create_time).rows if readings else {}
