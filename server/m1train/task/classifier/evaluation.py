"""How a classifier is judged: loss and accuracy; in the test also each class, what was confused, the worst mistakes."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from m1train.task.classifier.metrics import Counts, class_accuracy, confusion_matrix
from m1train.task.classifier.pictures import contact_sheet
from m1train.task.recipe import Batch, Picture, Result, Table

_MOST_CELLS = 20_000
_MISTAKES = 24

Mistake = tuple[float, int, int, int, NDArray[np.uint8]]
"""The probability of what was predicted, the image's place in the evaluation, the true class, the predicted, pixels."""


class ClassifierEvaluation:
    """Counts what was predicted; see m1train.task.recipe.Evaluation."""

    def __init__(
        self,
        judged: Callable[[nn.Module, Batch], tuple[Tensor, Tensor]],
        classes: Sequence[str],
        *,
        shows_results: bool,
    ) -> None:
        """`judged` gives the logits [B, C] of a batch and their mean loss."""
        self._judged = judged
        self._classes = classes
        self._shows_results = shows_results
        self._total_loss = 0.0
        self._true: list[NDArray[np.int64]] = []
        self._predicted: list[NDArray[np.int64]] = []
        self._mistakes: list[Mistake] = []
        self._right = self._n = 0

    def add(self, model: nn.Module, batch: Batch) -> None:
        """Take a batch in."""
        logits, loss = self._judged(model, batch)
        true, predicted = batch["label"].cpu().numpy(), logits.argmax(1).cpu().numpy()
        self._total_loss += loss.item() * batch.size
        self._true.append(true)
        self._predicted.append(predicted)
        if self._shows_results:
            self._keep_mistakes(logits, batch, true, predicted)
        self._right += int((true == predicted).sum())
        self._n += batch.size

    def metrics(self) -> Mapping[str, float]:
        """Give loss and accuracy."""
        return {"loss": self._total_loss / self._n, "accuracy": self._right / self._n}

    def results(self, model: nn.Module) -> Sequence[Result]:
        """Give the confusion matrix, the accuracy of each class, and the worst mistakes; nothing for a validation."""
        del model
        if not self._shows_results:
            return []
        confusion = self.confusion()
        return [self._class_table(confusion), self._confusion_table(confusion), *self._mistake_results()]

    def confusion(self) -> Counts:
        """Count how often each class (row) was called each (column): [C, C]."""
        return confusion_matrix(np.concatenate(self._true), np.concatenate(self._predicted), len(self._classes))

    def _class_table(self, confusion: Counts) -> Table:
        counts = confusion.sum(axis=1)
        rows = [
            (name, None if np.isnan(part) else part, int(n))
            for name, part, n in zip(self._classes, class_accuracy(confusion), counts, strict=True)
        ]
        title = "How many of the test images of each class were called right."
        return Table("classes", title, ("class", "accuracy", "images"), rows, units={"accuracy": "fraction"})

    def _confusion_table(self, confusion: Counts) -> Table:
        true, predicted = np.nonzero(confusion)
        order = np.argsort(-confusion[true, predicted], kind="stable")[:_MOST_CELLS]
        kept = np.sort(order)  # by true class again
        rows = [
            (self._classes[i], self._classes[j], int(confusion[i, j]))
            for i, j in zip(true[kept], predicted[kept], strict=True)
        ]
        cut = f"the {len(kept):,} largest of {len(true):,} counts" if len(kept) < len(true) else ""
        title = "How often test images of a class (true) were called another (predicted)."
        columns = ("true", "predicted", "count")
        return Table("confusion", title, columns, rows, pivot=("true", "predicted", "count"), truncated=cut)

    def _keep_mistakes(
        self, logits: Tensor, batch: Batch, true: NDArray[np.int64], predicted: NDArray[np.int64]
    ) -> None:
        wrong = np.flatnonzero(true != predicted)
        if not len(wrong):
            return
        sure = torch.softmax(logits.float(), 1).amax(1).cpu().numpy()
        for i in wrong[np.argsort(-sure[wrong], kind="stable")[:_MISTAKES]]:
            pixels = batch["as_read"][i].cpu().numpy()
            # Of two that are equally sure the earlier one; no comparison ever reaches the pixels.
            mistake = (float(sure[i]), -(self._n + int(i)), int(true[i]), int(predicted[i]), pixels)
            if len(self._mistakes) < _MISTAKES:
                heapq.heappush(self._mistakes, mistake)
            else:
                heapq.heappushpop(self._mistakes, mistake)

    def _mistake_results(self) -> Sequence[Result]:
        worst = sorted(self._mistakes, reverse=True)
        if not worst:
            return []
        rows = [
            (number, self._classes[true], self._classes[predicted], sure)
            for number, (sure, _, true, predicted, _) in enumerate(worst, 1)
        ]
        title = "The test images that it called wrong and was surest of."
        columns, units = ("number", "true", "predicted", "probability"), {"probability": "fraction"}
        words = [f"{self._classes[true]} > {self._classes[predicted]}" for _, _, true, predicted, _ in worst]
        sheet = contact_sheet([pixels for *_, pixels in worst], words)
        return [Table("mistakes", title, columns, rows, units=units), Picture("mistakes-sheet", title, sheet)]
