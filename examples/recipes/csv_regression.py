"""Regression from a CSV file: m1ctl submit ./csv_regression.py --data ./houses.csv --watch.

The last column is what is predicted, the others are what it is predicted from; all of them are numbers.
"""

import csv
from dataclasses import dataclass

import numpy as np
import torch
from m1train.recipe import LOSS, Metric, Task, TaskConfig, setting
from torch import nn
from torch.nn import functional
from torch.optim import AdamW


class HousePrices(Task):
    """A small network that predicts the last column of a CSV file."""

    metrics = (Metric("mae", "", "less", "How far a prediction is off on average, in the column's unit."), LOSS)
    sample_unit = "rows"

    @dataclass(frozen=True, kw_only=True)
    class Config(TaskConfig):
        lr: float = setting(0.01, "Learning rate of the first epoch; then along a cosine.", minimum=0, maximum=1)
        width: int = setting(64, "Units of the hidden layer.", minimum=1, maximum=4096)

    def read(self, source):
        with open(source, newline="") as file:
            rows = [[float(cell) for cell in row] for row in list(csv.reader(file))[1:] if row]
        table = np.array(rows, np.float32)
        return {"train": {"x": table[:, :-1], "y": table[:, -1]}}  # a tenth is set apart as the test

    def facts(self, columns):  # kept in every checkpoint
        x, y = columns["x"], columns["y"]
        return {"x": [x.mean(0).tolist(), (x.std(0) + 1e-6).tolist()], "y": [float(y.mean()), float(y.std() + 1e-6)]}

    def network(self, info):
        self.x_mean, self.x_std = (torch.tensor(values) for values in info.facts["x"])
        self.y_mean, self.y_std = info.facts["y"]
        return nn.Sequential(
            nn.Linear(len(self.x_mean), self.config.width), nn.ReLU(), nn.Linear(self.config.width, 1), nn.Flatten(0)
        )

    def optimizer(self, model):
        return AdamW(model.parameters(), lr=self.config.lr)

    def predicted(self, model, batch):
        return model((batch["x"] - self.x_mean) / self.x_std) * self.y_std + self.y_mean

    def training_loss(self, model, batch, draw):
        predicted = self.predicted(model, batch)
        loss = functional.mse_loss(predicted / self.y_std, batch["y"] / self.y_std)
        return loss, {"mae": (predicted - batch["y"]).abs().mean()}
