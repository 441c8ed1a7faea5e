"""The measurements as data: their settings and declarations. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from m1train.task.settings import Config, Declaration, setting

WORKS = ("matmul", "mlp", "mixture", "fft", "memory")
CLAIMS = (
    *("threads", "torchscript", "workers", "persistent", "pinned", "dtype", "bfloat16", "memory_format"),
    *("gpu", "small", "accumulation", "bandwidth"),
)


@dataclass(frozen=True, kw_only=True)
class StressConfig(Config):
    """How long, how hard and with what the machine is kept busy."""

    duration_s: float = setting(60, "How long it works, holds not counted.", minimum=1, maximum=86_400, unit="s")
    load: float = setting(
        1.0, "The part of the time in which the profile's threads work; they rest in between.", minimum=0.05, maximum=1
    )
    memory_limit_mb: int = setting(
        2048,
        "The process stays below this, torch itself included; what torch alone exceeds is refused.",
        minimum=64,
        maximum=16_777_216,
        unit="MB",
    )
    work: str = setting("all", "What it does: everything by turns, or one thing.", choices=("all", *WORKS))


@dataclass(frozen=True, kw_only=True)
class ClaimsConfig(Config):
    """Which rules are measured, and for how long."""

    only: str = setting("all", "The rule that is measured.", choices=("all", *CLAIMS))
    seconds_per_rule: float = setting(
        8, "About this long each thing is compared, and three times at least.", minimum=0.1, maximum=600, unit="s"
    )
    batch_size: int = setting(
        64, "Images of the training steps that are timed.", minimum=8, maximum=1024, unit="images"
    )
    limit_s: float = setting(
        240, "When this time is over, what is left is not measured.", minimum=1, maximum=86_400, unit="s"
    )


@dataclass(frozen=True, kw_only=True)
class EngineConfig(Config):
    """How long the engine is timed beside other ways to train the same network."""

    rounds: int = setting(6, "How often each way has its turn.", minimum=2, maximum=1000)
    steps: int = setting(8, "Steps of a turn that are timed, after two that are not.", minimum=1, maximum=1000)
    batch_size: int = setting(128, "Images of a step.", minimum=2, maximum=1024, unit="images")
    limit_s: float = setting(
        300, "No round begins after this time, but the second.", minimum=1, maximum=86_400, unit="s"
    )


DECLARATIONS = (
    Declaration(
        name="stress",
        summary="Keeps the processor and the memory busy, and measures how fast they are and stay.",
        default_data="",
        config=StressConfig,
        implementation="m1train.measurements.stress:Stress",
        measures=True,
        needs=(),
        metrics=(),
        sample_unit="",
    ),
    Declaration(
        name="claims",
        summary="Measures on this machine what rules of thumb claim about training.",
        default_data="",
        config=ClaimsConfig,
        implementation="m1train.measurements.claims:Claims",
        measures=True,
        needs=(),
        metrics=(),
        sample_unit="",
    ),
    Declaration(
        name="engine",
        summary="Times the training loop beside a plain script with the same network.",
        default_data="",
        config=EngineConfig,
        implementation="m1train.measurements.engine:Engine",
        measures=True,
        needs=(),
        metrics=(),
        sample_unit="",
    ),
)
