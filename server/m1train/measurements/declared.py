"""The measurements as data: their settings and declarations. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from m1train.config import Config, Declaration, setting

WORKS = ("matmul", "mlp", "mixture", "fft", "memory")


@dataclass(frozen=True, kw_only=True)
class StressConfig(Config):
    """How long, how hard and with what the machine is kept busy."""

    duration_s: float = setting(60, "How long it works, holds not counted.", minimum=1, maximum=86_400, unit="s")
    load: float = setting(
        1.0, "The part of the time in which the profile's threads work; they rest in between.", minimum=0.05, maximum=1
    )
    memory_limit_mb: int = setting(
        2048, "The process stays below this, torch itself included.", minimum=64, maximum=16_777_216, unit="MB"
    )
    work: str = setting("all", "What it does: everything by turns, or one thing.", choices=("all", *WORKS))


DECLARATIONS = (
    Declaration(
        name="stress",
        summary="Keeps the processor and the memory busy, and measures how fast they are and stay.",
        default_data="",
        config=StressConfig,
        implementation="m1train.measurements.stress:Stress",
        measures=True,
    ),
)
