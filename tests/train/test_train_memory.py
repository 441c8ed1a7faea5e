"""A batch that would not fit is refused before the first step, with the estimate and with what would fit."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from m1.columns import Column
from m1.errors import M1Error, Reason
from m1.jobdir import Profile
from m1.journal import Exited, JournalWriter
from m1.process.control import Control
from m1.process.journal import Journal
from m1.spec import JobSpec
from m1d.jobs.job import Attempt, Job
from m1d.jobs.states import JobState
from m1d.running.settle import Ending, settle
from m1train.engine import device, memory
from m1train.engine.training import Training
from m1train.measurements.context import MeasurementContext
from m1train.recipe import Classifier
from m1train.task.classifier.settings import TrainingConfig
from m1train.task.recipe import DataInfo, Rows
from m1train.tuning.tuning import Tuning
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

SAMPLES = Rows({"image": np.zeros((16, 32, 32, 3), np.uint8), "label": np.arange(16, dtype=np.int64) % 10})
INFO = DataInfo({"label": Column("label", "label", "int64", classes=tuple("0123456789"))})
WEIGHTS = (3072 + 1) * 10 * 4


class Linear(Classifier[TrainingConfig]):
    def model(self, n_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3072, n_classes))

    def optimizer(self, model: nn.Module) -> Optimizer:
        return AdamW(model.parameters())


@dataclass
class Memory:
    available: int


def made(batch_size: int) -> Training:
    at = device.place(Profile(memory_format="contiguous"))
    return Training.assemble(Linear(TrainingConfig(batch_size=batch_size)), at, INFO, None)


def test_what_a_step_needs_is_what_the_backward_pass_keeps_and_the_gradients_and_adam_s_moments() -> None:
    training = made(128)
    model = training.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    per_image, fixed = memory.needed_bytes(training, SAMPLES)
    # The linear layer keeps its input; the loss a probability for each class, and the label.
    assert 3072 * 4 <= per_image / memory._PEAK <= 3072 * 4 + 256
    assert fixed == 3 * WEIGHTS
    assert all(torch.equal(value, before[name]) for name, value in training.model.state_dict().items())
    assert all(parameter.grad is None for parameter in training.model.parameters())


def test_what_is_allocated_already_is_not_counted_again() -> None:
    training = made(128)
    model = training.model
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    training.optimizer.step()
    _, fixed = memory.needed_bytes(training, SAMPLES)
    assert WEIGHTS <= fixed < 2 * WEIGHTS
    other = Training(training.task, training.device, model, SGD(model.parameters(), momentum=0.9))
    _, fixed = memory.needed_bytes(other, SAMPLES)
    assert fixed == 2 * WEIGHTS


def test_a_batch_larger_than_the_memory_is_refused_with_what_would_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(3 * WEIGHTS + 2_000_000))
    with pytest.raises(M1Error) as caught:
        memory.check_batch(made(8192), SAMPLES, n_training=50_000)
    assert (caught.value.reason, caught.value.field) == (Reason.TOO_LARGE, "settings.batch_size")
    assert "batch_size=8192 needs about" in caught.value.message
    fits = int(caught.value.hint.split("batch_size=")[1].split()[0])
    assert 100 < fits < 163
    memory.check_batch(made(fits), SAMPLES, n_training=50_000)
    with pytest.raises(M1Error):
        memory.check_batch(made(fits + 2), SAMPLES, n_training=50_000)
    # A batch has no more images than there are.
    memory.check_batch(made(8192), SAMPLES, n_training=90)


def test_a_model_that_leaves_no_room_for_a_batch_is_refused_in_other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(WEIGHTS))
    with pytest.raises(M1Error, match="close something large"):
        memory.check_batch(made(2), SAMPLES, n_training=50_000)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_a_model_that_cannot_be_copied_trains_without_an_estimate(caplog: pytest.LogCaptureFixture) -> None:
    training = made(128)
    model = nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(3072, 10)))
    other = Training(training.task, training.device, model, training.task.optimizer(model))
    memory.check_batch(other, SAMPLES, n_training=50_000)
    assert "not estimated: the model cannot be copied (RuntimeError: Only Tensors created explicitly" in caplog.text


def test_a_tuning_refuses_such_a_batch_before_it_trains(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(3 * WEIGHTS + 2_000_000))
    profile = Profile(threads=1, memory_format="contiguous")
    with closing(JournalWriter(tmp_path / "journal")) as writer:
        context = MeasurementContext(profile, Control(tmp_path), Journal(writer))
        with pytest.raises(M1Error, match="batch_size=8192 needs about"):
            Tuning(Linear(TrainingConfig(batch_size=8192)), profile, ["threads", "dtype"]).measure(context)


def test_such_a_job_fails_at_once() -> None:
    exited = Exited("failed", Reason.TOO_LARGE.value, "too large", "take less")
    job = Job(
        number=1, name="a", spec=JobSpec(recipe="cifar", data="digits"), position=0, create_time=0.0,
        state=JobState.STARTING, attempt=Attempt(1, exited=exited),
    )  # fmt: skip
    (move,) = settle(job, Ending("exit status 1", watched=True, oom=False), newest_step=0, head=0)
    assert move.state == JobState.FAILED
