"""What a recipe's file imports: `Classifier` for images with a label, `Task` for anything else, and their parts.

A recipe of one's own is a class in one file. Its settings are its `Config`, a frozen dataclass, each declared with
`setting`: a default, a sentence, and for a number its bounds. Its summary is the first line of its docstring. `m1ctl
recipes new` writes one; docs/recipes.md says how to write others.

What is random comes in as a Draw: a pure function of seed, epoch and sample. Before each forward pass the engine also
sets torch's, NumPy's and Python's generators from seed and step, so that whatever a model draws from them (torch's own
dropout) is the same after a resume.

What a checkpoint holds is the model's and the optimizer's state. Whatever else changes while it trains is lost at a
resume: a recipe's file is tried for two steps, the second one also as after a resume, and refused when they differ.
"""

from __future__ import annotations

from m1.columns import IMAGES_OF_32, Need
from m1.metrics import LOSS, Metric
from m1.settings import Setting

from m1train.randomness import Draw, Stream
from m1train.task.classifier.classifier import MEAN, STD, Classifier
from m1train.task.classifier.settings import ACCURACY, TrainingConfig
from m1train.task.recipe import (
    AnyTask,
    Averages,
    Batch,
    DataInfo,
    Evaluation,
    Moment,
    Picture,
    Result,
    Rows,
    Samples,
    Table,
    Task,
    Text,
)
from m1train.task.settings import TaskConfig, Use, setting

Recipe = Classifier
"""What recipe files of 0.1.0 derive from: then, every recipe was a classifier."""
AnyRecipe = AnyTask

__all__ = [
    "ACCURACY",
    "IMAGES_OF_32",
    "LOSS",
    "MEAN",
    "STD",
    "AnyRecipe",
    "AnyTask",
    "Averages",
    "Batch",
    "Classifier",
    "DataInfo",
    "Draw",
    "Evaluation",
    "Metric",
    "Moment",
    "Need",
    "Picture",
    "Recipe",
    "Result",
    "Rows",
    "Samples",
    "Setting",
    "Stream",
    "Table",
    "Task",
    "TaskConfig",
    "Text",
    "TrainingConfig",
    "Use",
    "setting",
]
