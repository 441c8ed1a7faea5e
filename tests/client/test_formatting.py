"""Numbers as people read them."""

import math

import pytest
from m1.metrics import Metric
from m1.v1 import job_pb2
from m1ctl.views.formatting import (
    epoch_prefix,
    phase_words,
    progress_words,
    sparkline,
)
from m1ctl.views.metrics import Metrics, metrics_of
from m1ctl.views.throughput import Throughput

CLASSIFIER = Metrics((Metric("accuracy", "fraction", "more"), Metric("loss", "", "less")), "images")


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("val/accuracy", 0.8167, "81.67 %"),
        ("train/loss", 2.302585, "2.303"),
        ("train/lr", 0.0001, "0.0001"),
        ("train/samples_per_s", 301.4, "301 images/s"),
        ("train/samples_per_s", 5.66, "5.7 images/s"),
        ("train/images_per_s", 301.4, "301 images/s"),
        ("train/seconds/forward", 0.04123, "0.04123 s"),
        ("train/loss", math.nan, "nan"),
        ("train/grad_norm", math.inf, "inf"),
        ("val/accuracy", math.nan, "nan"),
        ("val/unheard_of", 0.5, "0.5"),
    ],
)
def test_a_metric_is_shown_as_it_is_declared(key: str, value: float, text: str) -> None:
    assert CLASSIFIER.value(key, value) == text


def test_what_is_not_declared_is_a_number_and_a_pace_has_its_unit_in_its_key() -> None:
    assert Metrics().value("val/accuracy", 0.5) == "0.5"
    assert Metrics().value("train/images_per_s", 300.0) == "300 images/s"
    assert Metrics().value("train/samples_per_s", 300.0) == "300 samples/s"
    assert (Metrics().headline.key, Metrics().validated) == ("loss", "val/loss")


def test_the_headline_is_the_first_metric_that_is_better_one_way() -> None:
    assert (
        Metrics((Metric("tokens"), Metric("f1", "fraction", "more"), Metric("loss", "", "less"))).validated == "val/f1"
    )


def test_a_job_declares_its_metrics() -> None:
    job = job_pb2.Job(sample_unit="pairs")
    job.metrics.add(key="recall", unit="fraction", better=job_pb2.BETTER_MORE, summary="Found.")
    declared = metrics_of(job)
    assert (list(declared.declared), declared.sample_unit) == (
        [Metric("recall", "fraction", "more", "Found.")],
        "pairs",
    )


def test_metrics_lose_their_group_and_come_in_the_order_of_their_declaration() -> None:
    assert (
        CLASSIFIER.words({"val/loss": 1.5, "val/f1": 0.5, "val/accuracy": 0.5}) == "accuracy 50.00 %  loss 1.5  f1 0.5"
    )
    assert CLASSIFIER.step_words({"train/samples_per_s": 300.0, "train/loss": 2.0, "train/grad_norm": 1.0}) == (
        "loss 2  300 images/s"
    )


def test_the_epoch_is_counted_from_one_and_ends_at_the_last() -> None:
    assert epoch_prefix(job_pb2.Progress(epoch=0, total_epochs=15)) == "epoch 1/15  "
    assert epoch_prefix(job_pb2.Progress(epoch=15, total_epochs=15)) == "epoch 15/15  "
    assert epoch_prefix(job_pb2.Progress(epoch=3)) == ""


def test_progress_is_unknown_before_there_is_a_plan() -> None:
    assert progress_words(job_pb2.Progress()) == "-"
    assert progress_words(job_pb2.Progress(step=50, total_steps=200, epoch=1, total_epochs=4)) == "epoch 2/4  25 %"


def test_plain_training_is_not_worth_a_word() -> None:
    assert phase_words(job_pb2.Progress(phase="train")) == ""
    assert phase_words(job_pb2.Progress(phase="read data", phase_done=12, phase_total=50)) == "read data 12/50"


@pytest.mark.parametrize(
    ("values", "width", "bars"),
    [
        ([], 10, ""),
        ([1.0], 10, "▁"),
        ([1.0, 1.0, 1.0], 10, "▁▁▁"),
        ([0.0, 7.0], 10, "▁█"),
        ([0.0, 0.0, 7.0, 7.0], 2, "▁█"),
        ([0.0, math.nan, 7.0], 10, "▁█"),
        ([1.0, 2.0], 0, ""),
    ],
)
def test_a_sparkline_spans_least_to_greatest(values: list[float], width: int, bars: str) -> None:
    assert sparkline(values, width) == bars


def test_throughput_needs_two_steps() -> None:
    pace = Throughput()
    assert pace.steps_per_s is None
    pace.see(100.0, 1)
    assert pace.steps_per_s is None
    assert pace.eta_s(100, 100.0) is None


def test_the_eta_is_what_is_left_at_the_measured_pace() -> None:
    pace = Throughput()
    for second in range(11):
        pace.see(100.0 + second, 2 * second)
    assert pace.steps_per_s == pytest.approx(2.0)
    assert pace.eta_s(120, 110.0) == pytest.approx(50.0)
    assert pace.eta_s(120, 115.0) == pytest.approx(45.0)  # it goes down between two steps
    assert pace.eta_s(120, 105.0) == pytest.approx(50.0)  # a clock behind that of the events
    assert pace.eta_s(0, 110.0) is None


def test_only_the_last_stretch_counts() -> None:
    pace = Throughput(window_s=10.0)
    for second in range(100):
        pace.see(float(second), second)
    for second in range(100, 120):
        pace.see(float(second), 100 + 5 * (second - 100))
    assert pace.steps_per_s == pytest.approx(5.0)


def test_a_step_that_goes_back_starts_the_measure_anew() -> None:
    pace = Throughput()
    pace.see(0.0, 100)
    pace.see(10.0, 200)
    pace.see(20.0, 150)  # resumed from a checkpoint
    assert pace.steps_per_s is None
    pace.see(30.0, 160)
    assert pace.steps_per_s == pytest.approx(1.0)
