"""All randomness of the training, and the only file that may touch a generator.

Everything random is a pure function of (seed, stream, epoch, sample): the order of an epoch, a sample's augmentation,
a dropout mask, the validation split. There is no state to save or to restore, and a batch may be cut into parts
without changing what is drawn for any of its samples.

The function is Philox4x32-10, a counter-based generator: 128 bits of counter and 64 bits of key give 128 random bits.
Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011; constants and known answers from
Random123. The key is the seed; the counter is (block, sample, epoch, stream and layer).
"""

from __future__ import annotations

import contextlib
import enum
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

U64 = NDArray[np.uint64]

_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


class Stream(enum.IntEnum):
    """What a draw is for. The numbers are part of what a seed means: never renumber, never reuse."""

    ORDER = 1
    SPLIT = 2
    AUGMENTATION = 3
    DROPOUT = 4
    WEIGHTS = 5
    STEP = 6
    FLIP = 7
    SHIFT = 8
    CUTOUT = 9
    TEST = 10
    SAMPLE = 11
    CROP = 12


def philox(counter: tuple[U64, U64, U64, U64], key: tuple[int, int]) -> tuple[U64, U64, U64, U64]:
    """Philox4x32-10 of many counters: four words of 32 bits each, in uint64 arrays that broadcast together."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        first, second = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c2 = (second >> _SHIFT) ^ c1 ^ np.uint64(k0), (first >> _SHIFT) ^ c3 ^ np.uint64(k1)
        c1, c3 = second & _MASK, first & _MASK
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3


def _words(seed: int, stream: Stream, layer: int, epoch: int, samples: U64, n: int) -> NDArray[np.uint32]:
    """The first n random words of each sample: [B, n]."""
    blocks = -(-n // 4)
    block = np.arange(blocks, dtype=np.uint64)[None, :]
    epochs = np.full((1, 1), epoch, np.uint64)
    purpose = np.full((1, 1), stream << 16 | layer, np.uint64)
    words = philox((block, samples[:, None], epochs, purpose), (seed & 0xFFFFFFFF, seed >> 32))
    result = np.empty((len(samples), blocks, 4), np.uint32)
    for i, word in enumerate(words):
        result[:, :, i] = word
    return result.reshape(len(samples), blocks * 4)[:, :n]


def _keys(seed: int, stream: Stream, epoch: int, n: int) -> U64:
    """One 64-bit sort key for each of n samples."""
    words = _words(seed, stream, 0, epoch, np.arange(n, dtype=np.uint64), 2).astype(np.uint64)
    keys: U64 = words[:, 0] << _SHIFT | words[:, 1]
    return keys


def epoch_order(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """The order in which an epoch visits n samples: a permutation of 0 to n-1."""
    return np.argsort(_keys(seed, Stream.ORDER, epoch, n), kind="stable")


def even_split(
    seed: int, groups: NDArray[np.int64], n_held_out: int, stream: Stream = Stream.SPLIT
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which samples stay and which are held out: two sorted lists of indices; the groups' shares differ by one."""
    keys = _keys(seed, stream, 0, len(groups))
    rank = np.empty(len(groups))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        rank[members[np.argsort(keys[members], kind="stable")]] = (np.arange(len(members)) + 0.5) / len(members)
    chosen = np.lexsort((keys, rank))
    return np.sort(chosen[n_held_out:]), np.sort(chosen[:n_held_out])


def random_split(
    seed: int, n: int, n_held_out: int, stream: Stream = Stream.SPLIT
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which of n samples stay and which are held out: two sorted lists of indices."""
    order = np.argsort(_keys(seed, stream, 0, n), kind="stable")
    return np.sort(order[n_held_out:]), np.sort(order[:n_held_out])


@dataclass(frozen=True)
class Draw:
    """The draws of one batch: bound to the seed, the epoch and the batch's samples."""

    seed: int
    epoch: int
    samples: U64
    """[B], the samples' indices in the training set."""

    def uniforms(self, stream: Stream, n: int) -> NDArray[np.float32]:
        """N numbers of [0, 1) for each sample: [B, n]."""
        return _uniforms(_words(self.seed, stream, 0, self.epoch, self.samples, n))

    def dropout(self, layer: int, features: int, p: float, like: torch.Tensor) -> torch.Tensor:
        """What a dropout layer multiplies by: [B, features], 0 with probability p, else 1/(1-p), typed as `like`."""
        import torch

        words = _words(self.seed, Stream.DROPOUT, layer, self.epoch, self.samples, features)
        kept = torch.from_numpy(words >= np.uint32(round(p * 2**32)))
        return kept.to(like.device, like.dtype).mul_(1 / (1 - p))


def _uniforms(words: NDArray[np.uint32]) -> NDArray[np.float32]:
    """24 bits make a float32 of [0, 1) without rounding."""
    return (words >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


@contextlib.contextmanager
def initial_weights(seed: int) -> Iterator[None]:
    """Inside, torch's own initialisations follow from the seed; the global generator is as before afterwards."""
    import torch

    words = _words(seed, Stream.WEIGHTS, 0, 0, np.zeros(1, np.uint64), 2)[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(words[0]) << 31 ^ int(words[1]))
        yield


def set_generators(seed: int, step: int) -> None:
    """Set torch's, NumPy's and Python's global generators for a step: what a model draws there follows from both."""
    import torch

    words = _words(seed, Stream.STEP, 0, step >> 32, np.array([step & 0xFFFFFFFF], np.uint64), 4)[0]
    torch.manual_seed(int(words[0]) << 31 ^ int(words[1]))
    np.random.seed(int(words[2]))
    random.seed(int(words[3]))


def set_sample_generators(seed: int, epoch: int | None, sample: int) -> None:
    """Set the three global generators for the making of one sample; with the epoch None in an evaluation."""
    import torch

    words = _words(seed, Stream.SAMPLE, int(epoch is None), epoch or 0, np.array([sample], np.uint64), 4)[0]
    torch.manual_seed(int(words[0]) << 31 ^ int(words[1]))
    np.random.seed(int(words[2]))
    random.seed(int(words[3]))
