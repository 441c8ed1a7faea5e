"""Metrics as a recipe declares them: clients format and plot by the declaration, and know no metric by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Better = Literal["more", "less", ""]


@dataclass(frozen=True)
class Metric:
    """A number that a recipe measures: "train/<key>" in a step, "val/<key>" and "test/<key>" in an evaluation."""

    key: str
    unit: str = ""
    """"fraction" is shown as percent; empty: a pure number."""
    better: Better = ""
    """Which of two values is the better one; empty: neither."""
    summary: str = ""
    """One sentence."""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Metric:
        """From plain data."""
        return cls(data["key"], data["unit"], data["better"], data["summary"])

    def improves(self, value: float, on: float) -> bool:
        """Return True if a value is better than another; of two equals neither is."""
        return value > on if self.better == "more" else value < on


LOSS = Metric("loss", "", "less", "What the training makes small, as a mean over the samples.")
# What the engine measures in every step, whatever the recipe. `samples_per_s` is in the recipe's unit of a sample.
OF_A_STEP = (
    Metric("lr", "", "", "The learning rate of the step, of the optimizer's first group."),
    Metric("grad_norm", "", "", "The norm of all gradients together, before it is clipped."),
    Metric("samples_per_s", "samples/s", "more", "Samples that are learnt from in a second."),
    Metric("seconds/data", "s", "less", "What a step waits for its batch."),
    Metric("seconds/forward", "s", "less", "What the forward pass of a step takes."),
    Metric("seconds/backward", "s", "less", "What the backward pass of a step takes."),
    Metric("seconds/optimizer", "s", "less", "What the optimizer takes in a step."),
)


def headline(metrics: Sequence[Metric]) -> Metric:
    """The metric that chooses the best checkpoint: the first one that is better one way."""
    return next((metric for metric in metrics if metric.better), LOSS)
