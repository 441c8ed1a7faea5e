"""A torch Dataset as it is: m1ctl submit ./torch_dataset.py --data ./folder-of-wav-or-anything --watch.

Each sample is made when it is wanted. Before that, the engine sets torch's, NumPy's and Python's generators from the
seed, the epoch and the sample's index, so that what is drawn here is drawn again after a resume.
"""

import random
from dataclasses import dataclass

import torch
from m1train.recipe import LOSS, Metric, Task, TaskConfig, setting
from torch import nn
from torch.nn import functional
from torch.optim import SGD
from torch.utils.data import Dataset


class Tones(Dataset):
    """Sines of a frequency that is to be found again, with noise that is new in every epoch."""

    def __init__(self, frequencies, length):
        self.frequencies, self.length = frequencies, length

    def __len__(self):
        return len(self.frequencies)

    def __getitem__(self, index):
        time = torch.arange(self.length) / self.length
        phase, frequency = random.random(), self.frequencies[index]
        signal = torch.sin(2 * torch.pi * (frequency * time + phase)) + 0.1 * torch.randn(self.length)
        return signal, torch.tensor(frequency)


class Frequency(Task):
    """Finds the frequency of a noisy tone."""

    metrics = (Metric("error", "Hz", "less", "How far the frequency is off on average."), LOSS)
    sample_unit = "tones"

    @dataclass(frozen=True, kw_only=True)
    class Config(TaskConfig):
        lr: float = setting(0.05, "Learning rate of the first epoch; then along a cosine.", minimum=0, maximum=1)
        length: int = setting(128, "Samples of a tone.", minimum=16, maximum=65_536)

    def read(self, source):  # one frequency a line
        frequencies = [float(line) for line in source.read_text().split()]
        return {"train": Tones(frequencies, self.config.length)}

    def network(self, info):
        return nn.Sequential(nn.Linear(self.config.length, 64), nn.Tanh(), nn.Linear(64, 1), nn.Flatten(0))

    def optimizer(self, model):
        return SGD(model.parameters(), lr=self.config.lr, momentum=0.9)

    def training_loss(self, model, batch, draw):  # a pair is called "input" and "target"
        found = model(batch["input"])
        return functional.smooth_l1_loss(found, batch["target"]), {"error": (found - batch["target"]).abs().mean()}
