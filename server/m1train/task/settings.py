"""A recipe's config: a frozen dataclass whose fields declare their own default, bounds, unit and sentence.

`declared` turns the declarations into plain data (m1.settings), which the daemon learns through `m1train describe`;
`resolved` turns given values into the config, by the same rules. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, get_type_hints

from m1.columns import Need
from m1.metrics import LOSS, Metric
from m1.settings import Kind, Setting, Value, resolve

KINDS: dict[type, Kind] = {int: "int", float: "float", bool: "bool", str: "str"}
_SETTING, _NEUTRAL, _PATH = "setting", "neutral", "path"


def setting(
    default: Value,
    summary: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    unit: str = "",
    neutral: bool = False,
    path: bool = False,
) -> Any:
    """A config field with its declaration.

    `path`: it is the absolute path of a file, or one of the choices; `m1ctl` makes a relative one absolute.

    `neutral`: at its default, a training is what it was before there was this setting, so that a checkpoint that does
    not know it goes on exactly.
    """
    declaration = {
        "default": default,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "unit": unit,
        "summary": summary,
    }
    return field(default=default, metadata={_SETTING: declaration, _NEUTRAL: neutral, _PATH: path})


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of what the training process runs."""


@dataclass(frozen=True, kw_only=True)
class EngineConfig(Config):
    """What the engine itself needs to know of every recipe."""

    epochs: int = setting(15, "How often every training sample is seen.", minimum=1, maximum=100_000, unit="epochs")
    batch_size: int = setting(
        128, "Samples that one optimizer step learns from.", minimum=1, maximum=65_536, unit="samples"
    )
    seed: int = setting(
        0, "All that is random follows from it: the same seed trains the same weights.", minimum=0, maximum=2**53
    )
    metrics_every: int = setting(
        1, "Training metrics are recorded at every n-th step.", minimum=1, maximum=1_000_000, unit="steps"
    )
    validate_every_steps: int = setting(
        0,
        "A validation is made after every n-th step; with 0 after every epoch.",
        minimum=0,
        maximum=1_000_000_000,
        unit="steps",
        neutral=True,
    )
    checkpoint_every_epochs: int = setting(
        1,
        "A checkpoint is made after every n-th epoch; with 0 only at the end and on request.",
        minimum=0,
        maximum=100_000,
        unit="epochs",
    )
    checkpoint_every_steps: int = setting(
        0,
        "A checkpoint is made after every n-th step, too; with 0 only by epochs and by time.",
        minimum=0,
        maximum=1_000_000_000,
        unit="steps",
        neutral=True,
    )
    checkpoint_every_s: float = setting(
        300,
        "At most this much training is at risk: a checkpoint is made when the last one is older; "
        "with 0 only by epochs.",
        minimum=0,
        maximum=86_400,
        unit="s",
    )
    keep_checkpoints: int = setting(
        3, "How many of the newest checkpoints are kept; the best one is kept besides.", minimum=1, maximum=10_000
    )
    test_fraction: float = setting(
        0.1,
        "Where the data have no test split, this part of the training samples is set apart as one, from the seed.",
        minimum=0.01,
        maximum=0.5,
        neutral=True,
    )


@dataclass(frozen=True, kw_only=True)
class TaskConfig(EngineConfig):
    """The settings that every recipe has, whatever its task."""

    val_samples: int = setting(
        5000,
        "Training samples that are held out for validation; at most a tenth of them.",
        minimum=0,
        maximum=1_000_000_000,
        unit="samples",
    )


AnyConfigT = TypeVar("AnyConfigT", bound=Config)
EngineConfigT = TypeVar("EngineConfigT", bound=EngineConfig)


@dataclass(frozen=True)
class Use:
    """Something that can be done with a trained model: "predict", "sample"."""

    name: str
    summary: str
    options: tuple[Setting, ...] = ()
    inputs: str = ""
    """What it takes: "files", or nothing."""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "name": self.name,
            "summary": self.summary,
            "options": [option.to_json() for option in self.options],
            "inputs": self.inputs,
        }


@dataclass(frozen=True)
class Declaration:
    """A recipe as data: what `m1train describe` says of it."""

    name: str
    summary: str
    default_data: str
    config: type[Config]
    implementation: str
    """The class, as "module:class", imported when it is run: a Recipe, or a Measurement."""
    bfloat16: bool = False
    """It is meant to be trained in bfloat16, where the processor has instructions for it."""
    measures: bool = False
    """It is a Measurement."""
    package: str = ""
    """The installed package that offers it; empty for one of m1d's own and for a user's file."""
    needs: tuple[Need, ...] = ()
    """The columns that it learns from; none for a Measurement, or where it reads its data itself."""
    metrics: tuple[Metric, ...] = (LOSS,)
    sample_unit: str = "samples"
    reads_data: bool = False
    """It reads its data itself."""
    uses: tuple[Use, ...] = ()
    planner: str = ""
    """What chooses settings by this machine's speed when a job is submitted, as "module:function", torch-free; see
    m1train.task.planning. Empty: nothing is chosen."""
    identity: str = ""
    """What a checkpoint remembers it by, where its name does not say all: "Mine@<SHA-256 of the file>"."""

    def to_json(self) -> dict[str, Any]:
        """As plain data, in the form of the daemon's recipe catalogue."""
        return {
            "name": self.name,
            "summary": self.summary,
            "default_data": self.default_data,
            "bfloat16": self.bfloat16,
            "measures": self.measures,
            "package": self.package,
            "needs": [{"kind": need.kind, "options": dict(need.options)} for need in self.needs],
            "metrics": [metric.to_json() for metric in self.metrics],
            "sample_unit": self.sample_unit,
            "reads_data": self.reads_data,
            "plans": bool(self.planner),
            "uses": [use.to_json() for use in self.uses],
            "settings": [setting.to_json() for setting in declared(self.config)],
        }


def declared(config: type[Config]) -> list[Setting]:
    """The settings of a config class, in the order of its fields."""
    kinds = get_type_hints(config)
    return [
        Setting(name=f.name, kind="path" if f.metadata.get(_PATH) else KINDS[kinds[f.name]], **f.metadata[_SETTING])
        for f in fields(config)
        if _SETTING in f.metadata
    ]


def neutral(config: type[Config]) -> dict[str, Value]:
    """The settings that change nothing while they are at their default, with that default."""
    return {f.name: f.metadata[_SETTING]["default"] for f in fields(config) if f.metadata.get(_NEUTRAL)}


def resolved(config: type[AnyConfigT], given: Mapping[str, object]) -> AnyConfigT:
    """The config with the given values, and defaults for the rest.

    Raises:
        M1Error: INVALID_SETTING, for what is unknown, of the wrong kind or out of bounds.
    """
    values: dict[str, Any] = resolve(declared(config), given)
    return config(**values)
