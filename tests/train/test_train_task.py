"""A task that is no classifier: a line through one's own arrays, and a torch Dataset that draws what it gives."""

import json
from pathlib import Path

import numpy as np
import pytest
from m1.jobdir import Want, checkpoint_path, result_path, results_path
from m1.journal import Approximate, CheckpointWritten, Metrics, Notice, Phase, Result
from training_process import Job, assert_same, ended, exited, trained

# 49 of the 60 rows are trained on, in batches of 16: the last batch of an epoch is of one row.
ROWS, PER_EPOCH, STEPS = 60, 4, 12
RHYTHM = {
    "epochs": 3,
    "batch_size": 16,
    "validate_every_steps": 5,
    "checkpoint_every_epochs": 0,
    "checkpoint_every_steps": 3,
    "keep_checkpoints": 100,
}

LINE = '''
"""A line through points."""
import numpy as np
from dataclasses import dataclass
from m1train.recipe import LOSS, Metric, Picture, Table, Task, TaskConfig, Text, setting
from torch import nn
from torch.optim import AdamW


class Line(Task):
    """Regression on a table."""

    metrics = (Metric("mae", "", "less", "The mean absolute error."), LOSS, Metric("spread", "", "", "No number."))
    sample_unit = "rows"

    @dataclass(frozen=True, kw_only=True)
    class Config(TaskConfig):
        lr: float = setting(0.01, "Learning rate.", minimum=0, maximum=10)

    def read(self, source):
        table = np.loadtxt(source, delimiter=",", dtype=np.float32)
        return {"train": {"x": table[:, :-1], "y": table[:, -1:]}}

    def facts(self, columns):
        return {"mean": columns["x"].mean(0).tolist()}

    def network(self, info):
        model = nn.Sequential(nn.Linear(len(info.facts["mean"]), 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))
        model.register_buffer("mean", __import__("torch").tensor(info.facts["mean"]))
        return model

    def optimizer(self, model):
        return AdamW(model.parameters(), lr=self.config.lr)

    def training_loss(self, model, batch, draw):
        error = model(batch["x"] - model.mean) - batch["y"]
        return error.square().mean(), {"mae": error.abs().mean()}

    def evaluation(self, info, split):
        return Judged(split)


class Judged:
    def __init__(self, split):
        self.split, self.rows = split, []

    def add(self, model, batch):
        predicted = model(batch["x"] - model.mean)
        self.rows += zip(batch["y"][:, 0].tolist(), predicted[:, 0].tolist())

    def metrics(self):
        errors = [abs(y - predicted) for y, predicted in self.rows]
        return {
            "loss": sum(e * e for e in errors) / len(errors),
            "mae": sum(errors) / len(errors),
            "spread": float("nan"),
        }

    def results(self, model):
        return [
            Table("rows", "What was predicted.", ("y", "predicted"), self.rows),
            Text("last", "What was judged last.", self.split),
            Picture("dot", "A dot.", np.zeros((2, 2, 3), np.uint8)),
        ]
'''


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x = np.sin(np.arange(ROWS * 3, dtype=np.float32)).reshape(ROWS, 3)
    path = tmp_path_factory.mktemp("table") / "houses.csv"
    np.savetxt(path, np.column_stack((x, x @ [1.0, -2.0, 0.5] + 3)), delimiter=",")
    return path


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory, table: Path) -> Job:
    """The job that nobody disturbs."""
    root = tmp_path_factory.mktemp("line")
    job = Job.of_file(root / "job", LINE, table, root, **RHYTHM)
    job.run()
    return job


def test_a_regression_trains_to_its_end_and_says_what_it_declares(line: Job) -> None:
    records = line.journals()
    assert ended(records, "succeeded"), exited(records)
    steps = [r for r in records if isinstance(r, Metrics) and r.of_step]
    assert [r.step for r in steps] == list(range(1, STEPS + 1))
    assert {"train/loss", "train/mae", "train/lr", "train/grad_norm", "train/samples_per_s"} <= set(steps[0].values)
    (tested,) = (r for r in records if isinstance(r, Metrics) and "test/mae" in r.values)
    assert set(tested.values) == {"test/loss", "test/mae", "test/spread"}
    told = [r.message for r in records if isinstance(r, Notice)]
    assert "the data have no test split: 6 of 60 samples are set apart as one" in told
    assert "5 of the 54 training samples are held out for validation, a tenth, and not 5000" in told


def test_a_last_batch_of_one_is_trained_where_the_model_can_learn_from_it(line: Job) -> None:
    assert exited(line.journals()).step == STEPS == PER_EPOCH * 3
    data = json.loads((checkpoint_path(line.directory, STEPS) / "state.json").read_text())
    assert data["epoch"] == 3


def test_validations_and_checkpoints_are_made_after_the_steps_that_were_asked_for(line: Job) -> None:
    records = line.journals()
    validated = [r.step for r in records if isinstance(r, Metrics) and "val/loss" in r.values]
    assert validated == [5, 10, STEPS]
    written = [r for r in records if isinstance(r, CheckpointWritten)]
    assert [r.step for r in written] == [3, 6, 9, STEPS]
    assert [bool(r.metrics) for r in written] == [False, False, False, True], "what belongs to these weights"
    phases = [r.name for r in records if isinstance(r, Phase) and not r.total]
    assert phases == ["read data", "train", "validate", "train", "validate", "train", "validate", "test"]


def test_a_metric_that_is_no_number_stands_in_no_checkpoint(line: Job) -> None:
    written = [r for r in line.journals() if isinstance(r, CheckpointWritten)]
    assert set(written[-1].metrics) == {"val/loss", "val/mae"}


def test_its_results_are_those_of_the_test(line: Job) -> None:
    said = [r for r in line.journals() if isinstance(r, Result)]
    assert [(r.name, r.step) for r in said if r.name == "last"] == [("last", step) for step in (5, 10, STEPS, STEPS)]
    assert {file.name for file in results_path(line.directory).iterdir()} == {"rows.json", "last.txt", "dot.png"}
    assert result_path(line.directory, "last", "text").read_text() == "test"
    assert len(json.loads(result_path(line.directory, "rows", "table").read_text())["rows"]) == 6


def test_paused_within_an_epoch_it_goes_on_with_its_stored_rows_to_the_same_bits(
    tmp_path: Path, table: Path, line: Job
) -> None:
    own = tmp_path / "houses.csv"
    own.write_bytes(table.read_bytes())
    job = Job.of_file(tmp_path / "job", LINE, own, tmp_path, **RHYTHM)
    job.run("after.step:7")  # killed, and its newest checkpoint is of step 6, within the second epoch
    own.unlink()
    with job.started() as attempt:
        attempt.wait_for(trained(8))
        job.want(Want.YIELD)
        attempt.finish()
    job.want(Want.RUN)
    job.run()
    records = job.journals()
    assert not [r for r in records if isinstance(r, Approximate)]
    assert_same(job, line, STEPS)
    best = [json.loads((checkpoint_path(of.directory, STEPS) / "state.json").read_text())["best"] for of in (job, line)]
    assert best[0] == best[1]


def test_the_best_checkpoint_is_the_one_with_the_least_error(tmp_path: Path, table: Path) -> None:
    rhythm = {**RHYTHM, "validate_every_steps": 1, "checkpoint_every_steps": 1, "lr": 0.5}
    job = Job.of_file(tmp_path / "job", LINE, table, tmp_path, **rhythm)
    records = job.run()
    values = {r.step: r.metrics["val/mae"] for r in records if isinstance(r, CheckpointWritten)}
    assert set(values) == set(range(1, STEPS + 1))
    last = json.loads((checkpoint_path(job.directory, STEPS) / "state.json").read_text())
    assert last["best"] == {"step": min(values, key=lambda step: (values[step], step)), "value": min(values.values())}
    newest_best = [r.step for r in records if isinstance(r, CheckpointWritten) and r.best][-1]
    assert newest_best == last["best"]["step"]


NOISE = '''
"""Samples that are drawn when they are wanted."""
import random
import numpy as np
import torch
from m1train.recipe import Task
from torch import nn
from torch.utils.data import Dataset


class Drawn(Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        x = torch.randn(4) + index + float(np.random.rand()) + random.random()
        return x, x.sum()[None]


class Noise(Task):
    """Learns from what is drawn."""

    def read(self, source):
        return {"train": Drawn(40), "test": Drawn(8)}

    def network(self, info):
        return nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 1))

    def optimizer(self, model):
        return torch.optim.SGD(model.parameters(), lr=torch.tensor(1e-5), momentum=0.9)

    def training_batch(self, rows, draw):  # what it draws follows from the samples before it
        return rows.map(lambda x: x + 0.01 * torch.rand(()))

    def training_loss(self, model, batch, draw):
        return (model(batch["input"]) - batch["target"]).square().mean(), {}

    def evaluation(self, info, split):
        return Judged()


class Judged:
    total, n = 0.0, 0

    def add(self, model, batch):
        self.total += float((model(batch["input"]) - batch["target"]).square().sum())
        self.n += batch.size

    def metrics(self):
        return {"loss": self.total / self.n}

    def results(self, model):
        return []
'''


def test_a_dataset_that_draws_what_it_gives_resumes_to_the_same_bits(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("it must stay")

    def new(name: str) -> Job:
        rhythm = {"epochs": 2, "batch_size": 8, "checkpoint_every_steps": 2, "validate_every_steps": 3}
        return Job.of_file(tmp_path / name, NOISE, source, tmp_path, **rhythm)

    undisturbed, job = new("undisturbed"), new("job")
    undisturbed.run()
    assert ended(undisturbed.journals(), "succeeded"), exited(undisturbed.journals())
    steps = 2 * 5  # 36 of 40 are trained on, in batches of 8
    assert exited(undisturbed.journals()).step == steps
    spec = json.loads((job.directory / "spec.json").read_text())
    spec["profile"]["prefetch"] = 2  # what draws from the generators is not prepared beside a step
    (job.directory / "spec.json").write_text(json.dumps(spec))
    results_path(job.directory).write_text("in the way, and nobody needs it")
    job.run("after.step:3")
    job.run("after.step:6")
    records = job.run()
    assert not [r for r in records if isinstance(r, Approximate)]
    assert_same(job, undisturbed, steps)
    source.unlink()
    gone = exited(new("late").run())
    assert (gone.code, gone.message) == ("DATASET_NOT_FOUND", f'data "{source}" does not exist')
