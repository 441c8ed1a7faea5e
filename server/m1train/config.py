"""Where recipe files of 0.1.0 find the settings; now in m1train.task.settings, and in m1train.recipe for recipes."""

from m1train.task.classifier.settings import ConfigT, TrainingConfig
from m1train.task.settings import Config, Declaration, declared, resolved, setting

__all__ = ["Config", "ConfigT", "Declaration", "TrainingConfig", "declared", "resolved", "setting"]
