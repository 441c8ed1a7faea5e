"""Metrics of a classifier: pure functions of counts. Rows of a confusion matrix are the true classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


def confusion_matrix(true: NDArray[np.int64], predicted: NDArray[np.int64], n_classes: int) -> Counts:
    """How often class i was called j: [C, C], from two lists of N class numbers."""
    pairs = np.bincount(true * n_classes + predicted, minlength=n_classes * n_classes)
    return pairs.reshape(n_classes, n_classes).astype(np.int64, copy=False)


def class_accuracy(confusion: Counts) -> list[float]:
    """The fraction of each true class that was called right: C values, NaN for a class without an image."""
    rows = confusion.sum(axis=1)
    return [int(confusion[i, i]) / int(n) if n else float("nan") for i, n in enumerate(rows)]
