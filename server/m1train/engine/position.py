"""Where a training stands, and what comes next: pure, without torch."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Duty(enum.Enum):
    """What comes next."""

    TRAIN = "train"
    VALIDATE = "validate"
    CHECKPOINT = "checkpoint"
    TEST = "test"
    FINISH = "finish"


@dataclass
class Position:
    """Where the training stands."""

    step: int = 0
    validated_epochs: int = 0
    validation: Mapping[str, float] = field(default_factory=dict)
    """Of the weights as they are now; empty after the next step."""
    request: int = 0
    """The newest checkpoint request that has been heeded."""
    saved: tuple[int, int] = (-1, -1)
    """Steps and validated epochs of the last checkpoint."""
    saved_at_s: float = 0.0
    """When the last checkpoint was copied, or the training began, by the loop's clock."""
    tested: bool = False


def due(position: Position, steps_per_epoch: int, epochs: int, checkpoint_every_epochs: int, validates: bool) -> Duty:
    """What comes next at a position."""
    epoch, rest = divmod(position.step, steps_per_epoch)
    if validates and position.validated_epochs < epoch:
        return Duty.VALIDATE
    every = checkpoint_every_epochs or epochs
    at_checkpoint = rest == 0 and epoch > 0 and (epoch % every == 0 or epoch == epochs)
    if at_checkpoint and position.saved != (position.step, position.validated_epochs):
        return Duty.CHECKPOINT
    if epoch < epochs:
        return Duty.TRAIN
    return Duty.FINISH if position.tested else Duty.TEST


def at_risk(position: Position, now_s: float, every_s: float) -> bool:
    """Whether a kill would cost more than `every_s` of training; 0 allows any cost."""
    return 0 < every_s <= now_s - position.saved_at_s and position.step != position.saved[0]
