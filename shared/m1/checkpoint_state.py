"""What a checkpoint's `state.json` says: where a training stands, and what was trained. Read by daemon and training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from m1.columns import Column
from m1.settings import Value
from m1.typed import LARGEST, parsed, record

STATE_FILE = "state.json"
# The names of many classes, and all settings.
MAX_STATE_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Best:
    """The checkpoint with the best value of the recipe's first metric so far, the earlier one of two equals."""

    step: int
    value: float


@dataclass(frozen=True)
class Origin:
    """What was trained, in words enough to train it elsewhere, and to use it without its data."""

    id: str = ""
    recipe: str = ""
    data: str = ""
    settings: Mapping[str, Value | None] = field(default_factory=dict)
    profile: Mapping[str, Value | None] = field(default_factory=dict)
    columns: Sequence[Column] = ()
    """What its data had; none in a checkpoint that was written before this was kept."""
    facts: str = ""
    """What the recipe learnt of its data before the first step (a vocabulary), as JSON."""


@dataclass(frozen=True)
class State:
    """The counters: where the training stands."""

    step: int
    """Optimizer steps done."""
    epoch: int
    """Epochs completed."""
    validated_epochs: int
    """Epochs whose validation has been recorded."""
    validation: Mapping[str, float]
    """The validation metrics that belong to these weights; empty when they were not measured."""
    best: Best | None
    fingerprint: Mapping[str, str | int]
    time: float
    """Seconds since the epoch."""
    approximate: Sequence[str] = ()
    """What has differed when the training went on under another fingerprint, in words; empty: it is exact."""
    job: Origin | None = None
    """None in a checkpoint that was written before this was kept."""
    validated_step: int | None = None
    """The step of the last validation that has been recorded; None: that of `validated_epochs`."""
    took_s: float = 0.0
    """Seconds that the training has taken up to here, holds not counted; what was lost and done again counts once."""


def read_state(content: bytes) -> State:
    """The state of the file's content, also as 0.1.0 wrote it.

    Raises:
        ValueError: it is not a state.
    """
    data = parsed(content)
    if isinstance(data, dict):
        data = _upgraded(data)
    state = record(State, data, LARGEST)
    if state.step >= 10**9:
        raise ValueError(f"step={state.step}")
    return state


def _upgraded(data: dict[str, Any]) -> dict[str, Any]:
    """As this version writes it: 0.1.0 knew one metric that chooses the best checkpoint, and called it by its name."""
    best = data.get("best")
    if isinstance(best, dict) and "value" not in best and len(best) == 2:
        value = next(value for key, value in best.items() if key != "step")
        data = {**data, "best": {"step": best.get("step"), "value": value}}
    return data
