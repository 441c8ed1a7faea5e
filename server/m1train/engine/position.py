"""Where a training stands, and what comes next: pure, without torch."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Action(enum.Enum):
    """What comes next."""

    TRAIN = "train"
    VALIDATE = "validate"
    CHECKPOINT = "checkpoint"
    TEST = "test"
    FINISH = "finish"


@dataclass(frozen=True)
class Rhythm:
    """How long a training is, and after which steps something else is due. 0 stands for never."""

    steps_per_epoch: int
    epochs: int
    validate_every_steps: int
    checkpoint_every_epochs: int = 0
    checkpoint_every_steps: int = 0

    @property
    def total_steps(self) -> int:
        """Count the steps of the whole training."""
        return self.steps_per_epoch * self.epochs


@dataclass
class Position:
    """Where the training stands."""

    step: int = 0
    validated_step: int = 0
    """The step at which a validation was last recorded."""
    validation: Mapping[str, float] = field(default_factory=dict)
    """Of the weights as they are now; empty after the next step."""
    request: int = 0
    """The newest checkpoint request that has been heeded."""
    saved: tuple[int, int] = (-1, -1)
    """The step of the last checkpoint, and of the last validation that was in it."""
    saved_at_s: float = 0.0
    """When the last checkpoint was copied, or the training began, by the loop's clock."""
    took_s: float = 0.0
    """What the training had taken, holds not counted, when this attempt began."""
    tested: bool = False


def due(position: Position, rhythm: Rhythm) -> Action:
    """Say what comes next at a position."""
    if position.validated_step < _last_validation(position.step, rhythm):
        return Action.VALIDATE
    if _at_checkpoint(position.step, rhythm) and position.saved != (position.step, position.validated_step):
        return Action.CHECKPOINT
    if position.step < rhythm.total_steps:
        return Action.TRAIN
    return Action.FINISH if position.tested else Action.TEST


def _last_validation(step: int, rhythm: Rhythm) -> int:
    """The last step up to here after which a validation is due; the end of the training is one."""
    every = rhythm.validate_every_steps
    if not every:
        return 0
    return step if step >= rhythm.total_steps else step - step % every


def _at_checkpoint(step: int, rhythm: Rhythm) -> bool:
    if step == 0:
        return False
    epoch, rest = divmod(step, rhythm.steps_per_epoch)
    after_epoch = rest == 0 and rhythm.checkpoint_every_epochs > 0 and epoch % rhythm.checkpoint_every_epochs == 0
    after_step = rhythm.checkpoint_every_steps > 0 and step % rhythm.checkpoint_every_steps == 0
    return after_epoch or after_step or step == rhythm.total_steps


def at_risk(position: Position, now_s: float, every_s: float) -> bool:
    """Return True if a kill would cost more than `every_s` of training; 0 allows any cost."""
    return 0 < every_s <= now_s - position.saved_at_s and position.step != position.saved[0]
