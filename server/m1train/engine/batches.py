"""Which images a step learns from, a pure function of the seed and the step; and having them ready in time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m1train.data.cache import Split
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


@dataclass(frozen=True)
class Inputs:
    """A batch as the model takes it: inputs [B, 3, H, W] and labels [B], still on the CPU."""

    inputs: Tensor
    labels: Tensor
    draw: Draw


class Feed:
    """The inputs of every step, some of them prepared ahead, in a thread, while another step trains.

    What is prepared is a pure function of the step, so it is the same by whomever and whenever it is prepared. It is
    prepared on the CPU: a GPU is the training's thread's alone.
    """

    def __init__(self, prepare: Callable[[int], Inputs], ahead: int, end: int) -> None:
        """`ahead` batches before they are asked for (0: none, and no thread); no step from `end` on exists."""
        self._prepare = prepare
        self._ahead = ahead
        self._end = end
        self._ready: dict[int, Future[Inputs]] = {}
        # One thread of torch inside it: the others are the training's.
        self._thread = (
            ThreadPoolExecutor(1, "feed", initializer=torch.set_num_threads, initargs=(1,)) if ahead else None
        )

    def take(self, step: int) -> Inputs:
        """The inputs of a step, counted from 0; what was prepared for steps far from it is forgotten."""
        if self._thread is None:
            return self._prepare(step)
        self._ready = {at: inputs for at, inputs in self._ready.items() if step <= at <= step + self._ahead}
        for coming in range(step, min(step + self._ahead + 1, self._end)):
            if coming not in self._ready:
                self._ready[coming] = self._thread.submit(self._prepare, coming)
        return self._ready.pop(step).result()

    def rest(self) -> None:
        """Return when nothing is being prepared."""
        wait(self._ready.values())

    def close(self) -> None:
        """End the thread, and forget what it has prepared."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
