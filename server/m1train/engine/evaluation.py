"""A model's loss and confusion matrix on images that it does not learn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from m1train.data.cache import Split
from m1train.engine.device import Device
from m1train.recipe import AnyRecipe
from m1train.task.classifier.metrics import Counts, confusion_matrix

# Large enough to keep the cores busy, small enough that a wish of the daemon waits a fraction of a second.
_BATCH = 256


@dataclass(frozen=True)
class Evaluation:
    """The mean loss, and the counts: rows are the true classes."""

    loss: float
    confusion: Counts


def evaluate(
    recipe: AnyRecipe,
    model: nn.Module,
    device: Device,
    split: Split,
    indices: NDArray[np.int64],
    n_classes: int,
    between: Callable[[], None],
) -> Evaluation:
    """Evaluate on the chosen images of a split; `between` is called between two batches and may raise."""
    total, predicted = 0.0, np.empty(len(indices), np.int64)
    model.eval()
    try:
        for start in range(0, len(indices), _BATCH):
            between()
            chosen = indices[start : start + _BATCH]
            labels = device.labels(torch.from_numpy(split.labels[chosen]))
            with torch.inference_mode(), device.autocast():
                inputs = device.inputs(recipe.evaluation_inputs(torch.from_numpy(split.images[chosen])))
                logits = recipe.evaluation_logits(model, inputs)
                total += recipe.loss(logits, labels).item() * len(chosen)
            predicted[start : start + len(chosen)] = logits.argmax(1).cpu().numpy()
    finally:
        model.train()
    return Evaluation(total / len(indices), confusion_matrix(split.labels[indices], predicted, n_classes))
