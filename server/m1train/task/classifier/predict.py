"""`predict`: the class of image files, by a trained classifier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from m1.errors import M1Error
from m1.settings import Value
from torch import nn

from m1train.data.decode import read_image
from m1train.task.recipe import DataInfo, as_tensor

if TYPE_CHECKING:
    from m1train.task.classifier.classifier import Classifier


def predict(
    recipe: Classifier[Any], model: nn.Module, info: DataInfo, files: Sequence[Path], top: int
) -> Iterator[Mapping[str, Value]]:
    """Name the `top` most probable classes of each file, the most probable first; a file that is no image says why."""
    image, classes = info.columns["image"], info.columns["label"].classes
    for file in files:
        try:
            pixels = read_image(file, image.options)
        except M1Error as error:
            yield {"file": str(file), "error": error.message}
            continue
        inputs = recipe.evaluation_inputs(as_tensor(pixels)[None])
        probabilities = torch.softmax(recipe.evaluation_logits(model, inputs).float(), 1)[0]
        best = probabilities.topk(min(top, len(classes)))
        for probability, number in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            yield {"file": str(file), "class": classes[number], "probability": probability}
