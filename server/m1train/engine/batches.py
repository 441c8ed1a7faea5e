"""Which samples a step learns from, a pure function of the seed and the step; and having them ready in time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m1train.randomness import Draw, epoch_order
from m1train.task.recipe import Batch, Samples, as_tensor


@dataclass(frozen=True)
class Drawn:
    """A batch, and what is random about it."""

    batch: Batch
    draw: Draw


class Batches:
    """The training samples in the order of each epoch. The last, smaller batch of an epoch is trained, too."""

    def __init__(
        self, samples: Samples, indices: NDArray[np.int64], batch_size: int, seed: int, least: int = 1
    ) -> None:
        """`least` is the smallest last batch that the model can learn from; a smaller one is left out."""
        self._samples = samples
        self._indices = indices
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = -1
        self._order = indices
        whole, rest = divmod(len(indices), batch_size)
        self.steps_per_epoch = whole + (rest >= max(1, least))

    @property
    def draws_from_generators(self) -> bool:
        """Return True if making a sample may draw from torch's, NumPy's and Python's generators."""
        return bool(getattr(self._samples, "draws_from_generators", False))

    def __len__(self) -> int:
        """Count the training samples."""
        return len(self._indices)

    def batch(self, epoch: int, i: int) -> Drawn:
        """Take the raw samples of the i-th batch of an epoch, both counted from 0."""
        if epoch != self._epoch:
            self._order = self._indices[epoch_order(self._seed, epoch, len(self._indices))]
            self._epoch = epoch
        chosen = self._order[i * self._batch_size : (i + 1) * self._batch_size]
        draw = Draw(self._seed, epoch, chosen.astype(np.uint64))
        return Drawn(raw_batch(self._samples, chosen, draw), draw)


def raw_batch(samples: Samples, chosen: NDArray[np.int64], draw: Draw | None) -> Batch:
    """Take some samples as tensors, as they are."""
    taken = samples.take(chosen, draw)
    return Batch({name: value if isinstance(value, Tensor) else as_tensor(value) for name, value in taken.items()})


class Feed:
    """The batch of every step, some of them prepared ahead, in a thread, while another step trains.

    What is prepared is a pure function of the step, so it is the same by whomever and whenever it is prepared. It is
    prepared on the CPU: a GPU is the training's thread's alone.
    """

    def __init__(self, prepare: Callable[[int], Drawn], ahead: int, end: int) -> None:
        """`ahead` batches before they are asked for (0: none, and no thread); no step from `end` on exists."""
        self._prepare = prepare
        self._ahead = ahead
        self._end = end
        self._ready: dict[int, Future[Drawn]] = {}
        # One thread of torch inside it: the others are the training's.
        self._thread = (
            ThreadPoolExecutor(1, "feed", initializer=torch.set_num_threads, initargs=(1,)) if ahead else None
        )

    def take(self, step: int) -> Drawn:
        """Take the batch of a step, counted from 0; what was prepared for steps far from it is forgotten."""
        if self._thread is None:
            return self._prepare(step)
        self._ready = {at: drawn for at, drawn in self._ready.items() if step <= at <= step + self._ahead}
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
