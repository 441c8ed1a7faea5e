"""Metrics as their job declares them: what they are called, in which unit they are shown, which one stands for the job.

Nothing here knows a recipe's metric by name. What a job does not declare is the engine's (m1.metrics.OF_A_STEP), or of
a job that is older than its recipe's declarations: it is shown as a pure number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from m1.metrics import LOSS, OF_A_STEP, Better, Metric, headline
from m1.v1 import job_pb2

_OF_A_STEP = {metric.key: metric for metric in OF_A_STEP}
_RATE = "_per_s"
_SAMPLES = "samples"
_STEP, _LEARNING_RATE = "train", "lr"
LOSS_OF_A_STEP = f"{_STEP}/{LOSS.key}"
_BETTER: Mapping[int, Better] = {job_pb2.BETTER_MORE: "more", job_pb2.BETTER_LESS: "less"}


@dataclass(frozen=True)
class Metrics:
    """What a job measures."""

    declared: Sequence[Metric] = ()
    sample_unit: str = _SAMPLES

    @property
    def headline(self) -> Metric:
        """The metric that stands for the job: the first that is better one way."""
        return headline(self.declared)

    @property
    def validated(self) -> str:
        """The key of the headline in a validation: "val/loss"."""
        return f"val/{self.headline.key}"

    def value(self, key: str, value: float) -> str:
        """Return a value with its unit: "81.67 %" of a fraction, "312 images/s" of the engine's pace, "0.0412 s"."""
        return format_value(value, self._unit(key))

    def words(self, values: Mapping[str, float], keys: Iterable[str] | None = None) -> str:
        """Return metrics (None: all) without their group: "loss 2.301  accuracy 11.30 %  312 images/s"."""
        chosen = self.ordered(values) if keys is None else [key for key in keys if key in values]
        # A pace is told by its unit.
        return "  ".join(
            self.value(key, values[key]) if key.endswith(_RATE) else f"{_name(key)} {self.value(key, values[key])}"
            for key in chosen
        )

    def step_words(self, values: Mapping[str, float]) -> str:
        """Return a step in short: the loss, the recipe's own metrics, the learning rate, the pace."""
        step = [key for key in self.ordered(values) if key.startswith(f"{_STEP}/")]
        own = [key for key in step if _name(key) not in _OF_A_STEP and not key.endswith(_RATE)]
        loss = [f"{_STEP}/{LOSS.key}"]
        rest = [f"{_STEP}/{_LEARNING_RATE}", *(key for key in step if key.endswith(_RATE))]
        return self.words(values, [*loss, *(key for key in own if key not in loss), *rest])

    def ordered(self, keys: Iterable[str]) -> list[str]:
        """Return the keys as the recipe declares them, then all others by their name."""
        places = {metric.key: place for place, metric in enumerate(self.declared)}
        return sorted(keys, key=lambda key: (places.get(_name(key), len(places)), key))

    def _unit(self, key: str) -> str:
        name = _name(key)
        for metric in self.declared:
            if metric.key == name:
                return metric.unit
        if name.endswith(_RATE):  # the engine's pace, in the task's unit; 0.1.0 wrote the unit into the key
            of = name.removesuffix(_RATE)
            return f"{self.sample_unit if of == _SAMPLES else of}/s"
        return _OF_A_STEP[name].unit if name in _OF_A_STEP else ""


def format_value(value: float, unit: str) -> str:
    """Return a number with its unit: a fraction as percent, a pace as a whole number, else four significant digits."""
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if unit == "fraction":
        return f"{100 * value:.2f} %"
    if unit.endswith("/s"):
        return f"{value:.0f} {unit}" if value >= 99.5 else f"{value:.1f} {unit}"
    return f"{value:.4g} {unit}".rstrip()


def metrics_of(job: job_pb2.Job) -> Metrics:
    """Return what a job declares."""
    declared = [Metric(info.key, info.unit, _BETTER.get(info.better, ""), info.summary) for info in job.metrics]
    return Metrics(declared, job.sample_unit or _SAMPLES)


def is_of_a_step(recorded_of_step: bool, keys: Iterable[str]) -> bool:
    """Return True if metrics were measured in a step; of an older event its keys say so."""
    return recorded_of_step or all(key.startswith(f"{_STEP}/") for key in keys)


def _name(key: str) -> str:
    """Without its group: "loss" of "train/loss"."""
    return key.split("/", 1)[-1]
