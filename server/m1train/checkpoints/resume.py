"""Going on from a checkpoint: which one, what of it is not as it was, and putting it into place."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from m1 import arithmetic
from m1.checkpoint_state import State
from m1.columns import Column, differing
from m1.errors import M1Error, Reason
from m1.jobdir import checkpoint_path
from m1.settings import Value
from torch import nn
from torch.optim import Optimizer

from m1train.checkpoints.files import BadCheckpointError, Loaded, newest_good
from m1train.checkpoints.snapshot import restore
from m1train.task.settings import Config, Declaration, neutral

# In a fingerprint, these tell nothing where one side lacks them: checkpoints of earlier versions do.
_NAMES = ("processor", "gpu")
# Settings that say what is recorded, judged and stored, not what is trained.
_WITHOUT_EFFECT_ON_BITS = (
    *("metrics_every", "validate_every_steps", "keep_checkpoints"),
    *("checkpoint_every_epochs", "checkpoint_every_steps", "checkpoint_every_s"),
)


def newest(directory: Path) -> tuple[Loaded | None, list[tuple[int, str]]]:
    """Read the newest good checkpoint; beside it the damaged ones that are newer, as (step, why)."""
    damaged: list[tuple[int, str]] = []
    for found in newest_good(directory):
        if not isinstance(found, tuple):
            return found, damaged
        damaged.append((found[0], str(found[1])))
    return None, damaged


def put_back(loaded: Loaded, model: nn.Module, optimizer: Optimizer, columns: Mapping[str, Column], path: Path) -> None:
    """Put a checkpoint's tensors into a model and its optimizer.

    Raises:
        M1Error: BAD_CHECKPOINT, when it is of another model, or of data that a model cannot stand for any more.
    """
    state = loaded.checkpoint.state
    try:
        changed = differing(state.job.columns, columns) if state.job else ""
        if changed:
            raise BadCheckpointError(f"its data are others: {changed}")
        restore(model, optimizer, loaded.weights, loaded.optimizer)
    except BadCheckpointError as error:
        message = f"the checkpoint of step {state.step} does not fit this job: {error}"
        hint = "submit the job anew, with the settings and the data that the checkpoint was made with"
        raise M1Error(
            Reason.BAD_CHECKPOINT, message, hint, "from_checkpoint", str(checkpoint_path(path, state.step))
        ) from error


def content_fingerprint(declared: Declaration, config: Config, data_sha256: str) -> dict[str, str]:
    """Name what decides the bits besides the machine: recipe, settings, data."""
    text = json.dumps(effective(config), sort_keys=True)
    return {
        "recipe": declared.identity or declared.name,
        "settings": hashlib.sha256(text.encode()).hexdigest(),
        "data": data_sha256,
    }


def effective(config: Config) -> dict[str, Value]:
    """Keep the settings that decide bits; without those that change nothing, where they are at their default."""
    unchanged = neutral(type(config))
    return {
        key: value
        for key, value in asdict(config).items()
        if key not in _WITHOUT_EFFECT_ON_BITS and not (key in unchanged and unchanged[key] == value)
    }


def changes(before: State, now: Mapping[str, str | int], config: Config) -> list[str]:
    """Say why the resumed training may not be the one that was begun, bit for bit: "threads was 1, is 2"."""
    old, new = arithmetic.comparable(before.fingerprint, now)
    for side, other in ((old, new), (new, old)):
        for key in _NAMES:
            if key not in other:
                side.pop(key, None)
    if before.job and old.get("settings") != new.get("settings"):
        # Both in full: the names say more than a hash.
        del old["settings"], new["settings"]
        old.update(_comparable(before.job.settings, config))
        new.update(_comparable(asdict(config), config))
    unlike = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    words = [_unlike(key, old.get(key), new.get(key)) for key in unlike]
    unproven = [f"a resume on {now['device']} is not proven exact"] if now["device"] != "cpu" else []
    return words + unproven


def _comparable(settings: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """The settings that decide bits; one that did not exist yet is at the default that changes nothing."""
    known = {**neutral(type(config)), **settings}
    return {key: value for key, value in known.items() if key not in _WITHOUT_EFFECT_ON_BITS}


def _unlike(key: str, before: object, now: object) -> str:
    if key.startswith("$"):
        return arithmetic.unlike(key, before, now)
    return f"{key} was {_short(before)}, is {_short(now)}"


def _short(value: object) -> str:
    text = "unknown" if value is None else str(value)
    return re.sub("[0-9a-f]{64}", lambda sha256: sha256[0][:12], text)  # as people write a SHA-256
