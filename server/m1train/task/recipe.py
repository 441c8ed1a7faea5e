"""What a task is: its data, its model, what a step makes small, and how what was learnt is judged.

The engine calls it; a recipe knows nothing of daemons, journals, checkpoints, ranks or the clock, and the engine knows
nothing of what the data mean. `Classifier` (m1train.task.classifier) is the short form for what tells pictures apart.

The way of a sample. A `Samples` gives raw values by index. `training_batch` makes of them, on the CPU and perhaps in a
thread beside the step before, what the model takes, augmented by what the Draw gives. The engine puts that on the
device, and `training_loss` runs the model on it. An evaluation goes the same way without a Draw: `evaluation_batch`,
then `Evaluation.add`.

Everything random comes from the Draw, or from torch's, NumPy's and Python's generators, which the engine sets from seed
and step before each forward pass. What a checkpoint holds is the model's and the optimizer's state, and `facts`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol

import numpy as np
import torch
from m1.columns import Column, Need
from m1.metrics import LOSS, Metric
from m1.settings import Value
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from m1train.randomness import Draw, Stream, random_split
from m1train.task.settings import EngineConfig, EngineConfigT, TaskConfig, Use

Split = Literal["val", "test"]
Arrays = Mapping[str, NDArray[Any]]
STREAMS: Mapping[Split, Stream] = {"val": Stream.SPLIT, "test": Stream.TEST}


class UnfitError(Exception):
    """What a recipe gives is not what the engine takes: the method, the setting or the class, and the way out."""

    def __init__(self, where: str, problem: str, hint: str = "put it right and submit it again") -> None:
        super().__init__(problem)
        self.where = where
        self.hint = hint


def called(value: object) -> str:
    """Call a value in a sentence: a tensor by its shape, anything else by its type."""
    if isinstance(value, Tensor):
        return str(list(value.shape))
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


@dataclass(frozen=True)
class Moment:
    """Where a training stands before a step."""

    step: int
    """Optimizer steps done."""
    steps_per_epoch: int
    epochs: int

    @property
    def epoch(self) -> int:
        """Counted from 0."""
        return self.step // self.steps_per_epoch

    @property
    def fraction(self) -> float:
        """The part of the whole training that is done, of [0, 1)."""
        return self.step / (self.steps_per_epoch * self.epochs)


class Batch(Mapping[str, Tensor]):
    """Named tensors of the same samples: `batch["tokens"]` is [B, ...], `batch.size` is B."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)
        self.size = len(next(iter(self._tensors.values())))

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Make a batch of what becomes of each tensor."""
        return Batch({name: change(tensor) for name, tensor in self._tensors.items()})


def as_tensor(array: NDArray[Any]) -> Tensor:
    """Make a tensor of an array, of its memory where that may be written to: a view of a mapped file may not."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


class Samples(Protocol):
    """What a training learns from, or is judged by: N samples, each found by its index."""

    def __len__(self) -> int:
        """N."""
        ...

    def take(self, indices: NDArray[np.int64], draw: Draw | None) -> Mapping[str, NDArray[Any] | Tensor]:
        """Give the raw values of some samples, by name, with these samples in the first dimension.

        `draw` is None in an evaluation, in which nothing may be random.
        """
        ...


@dataclass(frozen=True)
class Rows:
    """The rows of a dataset's columns as samples: arrays [N, ...], memory-mapped or in memory."""

    columns: Arrays

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def take(self, indices: NDArray[np.int64], draw: Draw | None) -> Mapping[str, NDArray[Any]]:
        """See Samples."""
        return {name: column[indices] for name, column in self.columns.items()}


@dataclass(frozen=True)
class DataInfo:
    """What a model may know of its data: the columns, and what the recipe learnt of them before the first step."""

    columns: Mapping[str, Column]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table as a result. A pivot names the columns (row, column, value) that make a matrix."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value | None]]
    units: Mapping[str, str] = field(default_factory=dict)
    """By column: "fraction" is shown as percent."""
    pivot: tuple[str, str, str] | None = None
    truncated: str = ""
    """What was left out, in words."""


@dataclass(frozen=True)
class Text:
    """A text as a result."""

    name: str
    title: str
    text: str


@dataclass(frozen=True)
class Picture:
    """A picture as a result: [H, W, 3] uint8."""

    name: str
    title: str
    pixels: NDArray[np.uint8]


Result = Table | Text | Picture


class Evaluation(Protocol):
    """What is known of a model after some batches that it does not learn from."""

    def add(self, model: nn.Module, batch: Batch) -> None:
        """Take a batch in. Called in evaluation mode, without gradients, inside the device's autocast."""
        ...

    def metrics(self) -> Mapping[str, float]:
        """Give the declared metrics of all that was added, by key; "loss" is one of them."""
        ...

    def results(self, model: nn.Module) -> Sequence[Result]:
        """Give tables, texts and pictures of all that was added; each replaces the job's last one of its name."""
        ...


class Averages:
    """An evaluation that takes the means of a step's loss and metrics over all samples; it has no results."""

    def __init__(self, judged: Callable[[nn.Module, Batch], tuple[Tensor, Mapping[str, Tensor | float]]]) -> None:
        """`judged` gives the mean loss over a batch, and other means by key."""
        self._judged = judged
        self._totals: dict[str, float] = {}
        self._n = 0

    def add(self, model: nn.Module, batch: Batch) -> None:
        """See Evaluation."""
        loss, measured = self._judged(model, batch)
        for key, value in {"loss": loss, **measured}.items():
            self._totals[key] = self._totals.get(key, 0.0) + float(value) * batch.size
        self._n += batch.size

    def metrics(self) -> Mapping[str, float]:
        """See Evaluation."""
        return {key: total / self._n for key, total in self._totals.items()}

    def results(self, model: nn.Module) -> Sequence[Result]:
        """See Evaluation."""
        del model
        return []


class Task(Generic[EngineConfigT]):
    """A task. One of its own derives from it, or from Classifier, and declares its settings as `Config`."""

    Config: ClassVar[type[Any]] = TaskConfig
    """The settings: a frozen dataclass that derives from TaskConfig."""
    default_data: ClassVar[str] = ""
    needs: ClassVar[tuple[Need, ...]] = ()
    """The columns of data that it needs; none for one that has `read`."""
    metrics: ClassVar[tuple[Metric, ...]] = (LOSS,)
    """What its steps and its evaluation measure. The first that is better one way chooses the best checkpoint."""
    sample_unit: ClassVar[str] = "samples"
    """What a sample is called: "tokens", "pairs", "rows"."""
    uses: ClassVar[tuple[Use, ...]] = ()
    """What can be done with a trained model; see `use`."""
    base_config: ClassVar[type[EngineConfig]] = TaskConfig
    """What `Config` derives from: the settings, with the bounds, that the engine counts on."""
    own_names: ClassVar[Mapping[str, str]] = {}
    """What a short form calls these methods, for sentences about it: {"training_loss": "loss"}."""

    def __init__(self, config: EngineConfigT) -> None:
        self.config = config
        self.notes: list[Text] = []
        """What there is to say of a new model (what it took of a file): each becomes a result, and its text a notice.

        Filled by `network` and `fit_network`; read once, before the first step.
        """

    # Data

    def read(self, source: Path) -> Mapping[str, Arrays | torch.utils.data.Dataset[Any]]:
        """Read its data itself: arrays [N, ...] by name, or a torch Dataset, for "train" and, if there is one, "test".

        One that overrides this has no `needs`. Without a "test", a tenth of "train" is set apart from the seed.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `read`")

    def facts(self, columns: Arrays) -> Mapping[str, Any]:
        """Learn what the model must know of the training data, as plain data: a vocabulary, a mean. Called once."""
        del columns
        return {}

    def samples(self, columns: Arrays, info: DataInfo) -> Samples:
        """Make samples of a split's columns: here, one of each row."""
        del info
        return Rows(columns)

    def split(
        self, samples: Samples, among: NDArray[np.int64], n: int, purpose: Split
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Hold n of some samples of "train" out for the validation, or the test where the data have none.

        Returns the others and those n, two sorted lists of indices; a pure function of the seed.
        """
        del samples
        rest, held_out = random_split(self.config.seed, len(among), n, STREAMS[purpose])
        return among[rest], among[held_out]

    @property
    def n_validation(self) -> int:
        """How many samples of "train" are to be held out for validation; a tenth of them at most will be."""
        return int(getattr(self.config, "val_samples", 0))

    @property
    def least_batch(self) -> int:
        """The smallest last batch of an epoch that the model can learn from; a smaller one is left out."""
        return 1

    @property
    def evaluation_batch_size(self) -> int:
        """How many samples an evaluation takes at a time."""
        return 256

    def size(self, batch: Batch) -> int:
        """Count a batch in `sample_unit`."""
        return batch.size

    # Model

    def network(self, info: DataInfo) -> nn.Module:
        """Make a new model."""
        raise NotImplementedError(f"{type(self).__name__} has no `network`")

    @property
    def fit_samples(self) -> int:
        """How many raw training samples `fit_network` is to see; with 0 it is not called."""
        return 0

    def fit_network(self, model: nn.Module, rows: Batch) -> None:
        """Set what follows from the data: called once, before the first step, with some raw training samples."""

    def optimizer(self, model: nn.Module) -> Optimizer:
        """Make a new optimizer of the model's parameters, with the learning rates that `rate` is a factor of."""
        raise NotImplementedError(f"{type(self).__name__} has no `optimizer`")

    @property
    def clip_norm(self) -> float:
        """The largest norm of all gradients together; infinity: they are not clipped."""
        return math.inf

    def rate(self, at: Moment) -> float:
        """Give the learning rates' factor: (1 + cos(pi epoch / epochs)) / 2 (Loshchilov and Hutter 2017)."""
        return (1 + math.cos(math.pi * at.epoch / at.epochs)) / 2

    @property
    def promised_s(self) -> float:
        """What the whole training was promised to take, by its planner (m1train.task.planning); 0: nothing was."""
        return float(getattr(self.config, "promised_s", 0.0))

    def set_rates(self, optimizer: Optimizer, at: Moment) -> None:
        """Set the rates of a step; a pure function of the moment. The first group's `lr` is what is recorded."""
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self.rate(at)

    # A step, an evaluation, a use

    def training_batch(self, rows: Batch, draw: Draw) -> Batch:
        """Make of raw samples what the model takes, augmented; on the CPU, perhaps in a thread. Here: as it is."""
        del draw
        return rows

    def evaluation_batch(self, rows: Batch) -> Batch:
        """Make of raw samples what the model takes, without anything random. Here: as it is."""
        return rows

    def training_loss(
        self, model: nn.Module, batch: Batch, draw: Draw | None
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Compute the mean loss over a batch, in float32, and any of the declared metrics of this step, by key.

        `draw` is None in an evaluation that is made of it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `training_loss`")

    def evaluation(self, info: DataInfo, split: Split) -> Evaluation:
        """Begin an evaluation on held-out samples of "train" ("val"), or on "test".

        Here: the loss and the metrics of a step, as means over all samples.
        """
        del info, split
        return Averages(lambda model, batch: self.training_loss(model, batch, None))

    def use(
        self, name: str, model: nn.Module, info: DataInfo, inputs: Sequence[Path], options: Mapping[str, Value]
    ) -> Iterator[Mapping[str, Value]]:
        """Answer with a trained model, in evaluation mode: a row for each file, or a piece of text for each row."""
        raise NotImplementedError(f"{type(self).__name__} has no use {name}")


AnyTask = Task[Any]
