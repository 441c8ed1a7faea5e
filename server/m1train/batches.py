"""Which images a step learns from: a pure function of the seed and the step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m1train.dataset.cache import Split
from m1train.randomness import Draw, epoch_order


@dataclass(frozen=True)
class Batch:
    """Images [B, 32, 32, 3] uint8, labels [B] int64, and what is random about them."""

    images: Tensor
    labels: Tensor
    draw: Draw


class Batches:
    """The training images in the order of each epoch. The last, smaller batch of an epoch is trained, too."""

    def __init__(self, split: Split, indices: NDArray[np.int64], batch_size: int, seed: int) -> None:
        self._split = split
        self._indices = indices
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = -1
        self._order = indices
        whole, rest = divmod(len(indices), batch_size)
        # BatchNorm cannot learn from one image: a last batch of a single one is left out.
        self.steps_per_epoch = whole + (rest > 1)

    def batch(self, epoch: int, i: int) -> Batch:
        """The i-th batch of an epoch, both counted from 0."""
        if epoch != self._epoch:
            self._order = self._indices[epoch_order(self._seed, epoch, len(self._indices))]
            self._epoch = epoch
        chosen = self._order[i * self._batch_size : (i + 1) * self._batch_size]
        return Batch(
            torch.from_numpy(self._split.images[chosen]),
            torch.from_numpy(self._split.labels[chosen]),
            Draw(self._seed, epoch, chosen.astype(np.uint64)),
        )
