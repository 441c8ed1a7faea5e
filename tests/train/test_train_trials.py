"""Trials: the statistics of timings, on cases that can be done by hand, and what a tuning's trials time."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from m1.jobdir import Profile
from m1.journal import Findings, JournalWriter, read_journal
from m1.process.control import Control
from m1.process.journal import Journal
from m1.trials import Estimate, median_interval, paired_ratio
from m1d.catalogue.profiles import current_conditions
from m1train.measurements.context import MeasurementContext
from m1train.randomness import Draw
from m1train.recipe import Classifier
from m1train.task.classifier.settings import TrainingConfig
from m1train.tuning import tuning
from m1train.tuning.choices import FIELDS
from m1train.tuning.search import MOST_PAIRS
from m1train.tuning.tuning import Tuning
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

PROFILE = Profile(threads=1, memory_format="contiguous")


def test_a_ratio_is_the_geometric_mean_of_the_pairs() -> None:
    found = paired_ratio([2.0, 8.0], [1.0, 1.0])
    assert found.value == pytest.approx(4.0)
    # The logarithms are 1 and 3 times log 2: mean 2, standard error 1, t(1) = 12.706.
    assert found.low == pytest.approx(4 / 2**12.706)
    assert found.high == pytest.approx(4 * 2**12.706)
    assert found.n == 2


def test_what_slows_both_of_a_pair_down_does_not_matter() -> None:
    found = paired_ratio([1.0, 3.0, 70.0], [2.0, 6.0, 140.0])
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_one_pair_has_no_interval() -> None:
    assert paired_ratio([3.0], [2.0]) == Estimate(1.5, None, None, 1)


def test_the_interval_of_many_pairs_is_that_of_the_normal_distribution() -> None:
    a = [math.e, 1 / math.e] * 5000
    found = paired_ratio(a, [1.0] * 10_000)
    assert found.high is not None
    assert math.log(found.high) == pytest.approx(1.96 / 100, rel=1e-3)


def test_the_interval_of_a_median_comes_from_the_binomial_distribution() -> None:
    # n = 10: P(Binomial <= 1) = 11/1024 = 1.07 %, P(Binomial <= 2) = 5.5 %: the second and the ninth value.
    assert median_interval([10, 1, 9, 2, 8, 3, 7, 4, 6, 5]) == Estimate(5.5, 2, 9, 10)
    assert median_interval([5, 1, 4, 2, 3, 6]) == Estimate(3.5, 1, 6, 6)


def test_five_values_bound_no_median() -> None:
    assert median_interval([1, 2, 3, 4, 5]) == Estimate(3, None, None, 5)


class Clock:
    """Goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def passes(self, seconds: float) -> None:
        self.now += seconds


class Pooled(nn.Module):
    """For images of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class Growing(Classifier[TrainingConfig]):
    """Images that are larger in every epoch; a batch takes a second, and the first one of another epoch a minute."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(TrainingConfig(batch_size=8, epochs=4))
        self._clock = clock
        self._epoch = -1

    def model(self, n_classes: int) -> nn.Module:
        return Pooled()

    def optimizer(self, model: nn.Module) -> Optimizer:
        return SGD(model.parameters())

    def training_inputs(self, images: Tensor, draw: Draw) -> Tensor:
        self._clock.passes(1 if draw.epoch == self._epoch else 60)
        self._epoch = draw.epoch
        side = 16 + 4 * draw.epoch
        return self.evaluation_inputs(images)[:, :, :side, :side]


@dataclass
class Compiler:
    """Is done in no time, and remembers for which sizes it was called, and whether its time was limited."""

    limited: dict[int, bool]

    def __call__(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        def compiled(x: Tensor) -> Tensor:
            self.limited.setdefault(x.shape[-1], signal.getitimer(signal.ITIMER_REAL) != (0, 0))
            logits: Tensor = model(x)
            return logits

        return compiled


@pytest.fixture
def context(tmp_path: Path) -> Iterator[MeasurementContext]:
    with closing(JournalWriter(tmp_path / "journal")) as writer:
        yield MeasurementContext(PROFILE, Control(tmp_path), Journal(writer))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(tuning, "time", SimpleNamespace(perf_counter=lambda: clock.now, monotonic=time.monotonic))
    return clock


def test_what_is_cold_is_trained_before_the_time_is_taken(context: MeasurementContext, clock: Clock) -> None:
    with closing(tuning._Trials(Growing(clock), context)) as trials:
        seconds = [trials.trial(PROFILE, number)[0] for number in range(MOST_PAIRS)]
    assert seconds == [1 / 8] * MOST_PAIRS
    assert trials.spent_s > MOST_PAIRS * 2


def test_images_of_every_size_are_compiled_for_before_the_first_trial_and_within_the_compiler_s_time(
    context: MeasurementContext, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = Compiler({})
    monkeypatch.setattr(torch, "compile", compiler)
    with closing(tuning._Trials(Growing(clock), context)) as trials:
        for number in range(MOST_PAIRS):
            trials.trial(replace(PROFILE, compile=True), number)
    assert compiler.limited == {16: True, 20: True, 24: True, 28: True}


def test_the_power_is_called_the_same_as_when_a_job_is_submitted(
    context: MeasurementContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unclear = SimpleNamespace(percent=100, secsleft=-1, power_plugged=None)
    monkeypatch.setattr(psutil, "sensors_battery", lambda: unclear, raising=False)
    Tuning(Growing(Clock()), PROFILE, FIELDS).measure(context)
    records = [entry.record for entry in read_journal(tmp_path / "journal", 0)]
    found = [record for record in records if isinstance(record, Findings)][-1]
    assert found.conditions["power"] == current_conditions()["power"] == "unknown"
