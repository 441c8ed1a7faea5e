"""The plain way to train the `cifar` recipe's network, as scripts do it, for others to be timed beside.

The same layers, loss, optimizer, clipping and kinds of augmentation, with torchvision's transforms image by image, a
DataLoader, contiguous memory, float32, eager mode and AdamW's default loop. It draws from the global generators: what
it trains is timed and thrown away.

`python -m m1train.measurements.plain THREADS BATCH_SIZE` is such a script, as a process of its own: what the engine
asks of its process, of the allocator of memory among it, is not to help it. It trains a step for each line that it
reads, and writes a line when it is done.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from m1.jobdir import Profile
from PIL import Image
from torch import Tensor, nn
from torch.optim import AdamW
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from m1train.data.fit import Pixels
from m1train.data.sources.digits import Digits
from m1train.engine.device import Device, place
from m1train.randomness import initial_weights
from m1train.recipe import MEAN, STD

_CLASSES = 10
_BLOCKS = ((64, 0.1), (128, 0.2), (256, 0.3))


def place_of_a_script(threads: int) -> Device:
    """Where a script trains that asks for nothing."""
    return place(Profile(threads=threads, memory_format="contiguous", fused=False))


def network() -> nn.Module:
    """[B, 3, 32, 32] to [B, 10] logits."""
    layers: list[nn.Module] = []
    channels = 3
    for width, dropout in _BLOCKS:
        for _ in range(2):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
        layers += [nn.MaxPool2d(2, 2), nn.Dropout2d(dropout)]
    layers += [nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(channels, 512), nn.ReLU(inplace=True)]
    with initial_weights(0):
        return nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(512, _CLASSES))


class Trainer:
    """A network with its optimizer, in its place."""

    def __init__(self, model: nn.Module, at: Device) -> None:
        self._model, self._at = model, at
        self._parameters = list(model.parameters())
        self._optimizer = at.prepare_optimizer(AdamW(self._parameters, lr=1e-3, weight_decay=1e-4))

    def step(self, inputs: Tensor, labels: Tensor) -> None:
        """Learn from a batch."""
        self._optimizer.zero_grad()
        with self._at.autocast():
            loss = nn.functional.cross_entropy(self._model(inputs), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        loss.item()


class Images(Dataset[tuple[Tensor, int]]):
    """Images that are augmented and normalised one by one."""

    def __init__(self, pixels: Pixels, labels: list[int]) -> None:
        self._images = [Image.fromarray(image) for image in pixels]
        self._labels = labels
        self._transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(0.5),
                transforms.RandomRotation(10),
                transforms.ColorJitter(0.1, 0.1, 0.1),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(self._images[index]), self._labels[index]


Loader = DataLoader[tuple[Tensor, int]]


def loader(images: Images, batch_size: int, workers: int = 0, persistent: bool = False) -> Loader:
    """Batches of images [B, 3, 32, 32] and labels [B], shuffled; the last, smaller one is left out."""
    return DataLoader(
        images,
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=persistent,
        worker_init_fn=_begin_worker if workers else None,
    )


def _begin_worker(_number: int) -> None:
    # A worker is a copy of this process, whose handler would keep it from ending when it is told to.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def endless(batches: Loader) -> Iterator[tuple[Tensor, Tensor]]:
    """Epoch after epoch."""
    while True:
        yield from batches


@cache
def digits() -> tuple[Pixels, list[int]]:
    """scikit-learn's digits: images [N, 32, 32, 3] uint8, and labels."""
    samples = list(Digits().samples(lambda *_: None))
    return np.stack([sample.pixels for sample in samples]), [int(sample.label) for sample in samples]


def tensors(count: int) -> tuple[Tensor, Tensor]:
    """Digits as a network takes them: [N, 3, 32, 32] float32, normalised and contiguous, and labels [N]."""
    pixels, labels = digits()
    images = torch.from_numpy(pixels[:count]).permute(0, 3, 1, 2).float().div_(255)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return ((images - mean) / std).contiguous(), torch.tensor(labels[:count])


class Script:
    """The plain script as a process of its own, step by step. Close it."""

    def __init__(self, threads: int, batch_size: int) -> None:
        command = [sys.executable, "-P", "-m", __name__, str(threads), str(batch_size)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def step(self) -> None:
        """Have it train a step.

        Raises:
            ChildProcessError: it has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # then it does not answer, either
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
        if not self._process.stdout.readline():
            raise ChildProcessError(f"the plain script ended with exit code {self._process.wait()}")

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


def _serve(threads: int, batch_size: int) -> None:
    torch.set_num_threads(threads)
    trainer = Trainer(network(), place_of_a_script(threads))
    batches = endless(loader(Images(*digits()), batch_size))
    for _ in sys.stdin:
        trainer.step(*next(batches))
        sys.stdout.write("\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve(*map(int, sys.argv[1:]))
