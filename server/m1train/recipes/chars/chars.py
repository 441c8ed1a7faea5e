"""The `chars` recipe: a small GPT that learns which character comes next. Settings and declaration are beside it.

AdamW with decay on matrices only, warm-up and cosine by step, gradients clipped: nanoGPT's way. A validation reads the
last windows of the text, says how many bits the model needs for a character, and has it write a few lines. A character
that the vocabulary has not counts as one, whichever it is.

Evidence, on two cores of an AMD EPYC with AVX-512 and bf16, torch 2.14.1, beside other programs:

- By default (0.8M parameters, 2,526 steps of 4,096 characters of the standard library) the test takes 2.01 bits per
  character, after 158 s in bfloat16 and 280 s in float32 (n = 1 each): python -m m1train chars --threads 2
- Beside nanoGPT's train.py with the same settings, 1.41 times its tokens a second in float32 (1.29 to 1.44) and 2.26
  times in bfloat16 (1.50 to 2.35). Its validation loss after 1,000 steps is 1.900; ours is 1.888 in both (1.875 to
  1.897). n = 5, by turns: python bench/chars.py DIR --turns 5 --steps 1000
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from m1.errors import M1Error, Reason
from m1.settings import Value
from numpy.typing import NDArray
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.optim import AdamW, Optimizer

from m1train.randomness import Draw, Stream
from m1train.recipes.chars import METRICS, NEEDS, SAMPLE, CharsConfig
from m1train.recipes.chars.model import GPT, Shape
from m1train.recipes.chars.samples import (
    Vocabulary,
    Windows,
    count_bytes,
    count_characters,
    hold_out,
    most_frequent,
    n_characters,
    n_windows,
)
from m1train.recipes.chars.sampling import Manner, written
from m1train.task.recipe import Arrays, Batch, DataInfo, Evaluation, Moment, Result, Samples, Split, Task, Text

_SAMPLE_LENGTH = 400
# Tokens that an evaluation takes at a time: some MiB of logits.
_EVALUATION_TOKENS = 2**14


class Chars(Task[CharsConfig]):
    """The recipe, as m1train.task.recipe declares it."""

    Config = CharsConfig
    default_data = "stdlib"
    needs = NEEDS
    metrics = METRICS
    sample_unit = "tokens"
    uses = (SAMPLE,)

    # Data

    def facts(self, columns: Arrays) -> Mapping[str, Any]:
        """Learn the vocabulary of what trains.

        Raises:
            M1Error: BAD_DATA for a text of which nothing can be learnt.
        """
        text, config = columns["text"], self.config
        if config.vocabulary == "bytes":
            _check_varied(count_bytes(text))
            return Vocabulary().to_json()
        n = n_characters(text)
        windows = n_windows(n, config.block_size)
        held_out = min(self.n_validation, windows // 10)
        counts = count_characters(text, (windows - held_out) * config.block_size if held_out else n)
        _check_varied(counts)
        return most_frequent(counts).to_json()

    def samples(self, columns: Arrays, info: DataInfo) -> Samples:
        """Encode the text, and cut it into windows.

        Raises:
            M1Error: BAD_DATA for a text that is shorter than one.
        """
        symbols, block_size = Vocabulary.from_json(info.facts).encoded(columns["text"]), self.config.block_size
        if len(symbols) <= block_size:
            what = "characters" if self.config.vocabulary == "characters" else "bytes"
            message = (
                f"the text is too short: what trains or what tests of it has {len(symbols)} {what}, "
                f"and block_size={block_size} takes {block_size + 1} at least"
            )
            hint = f"set block_size to {len(symbols) - 1} or less" if len(symbols) > 1 else "give a longer text"
            raise M1Error(Reason.BAD_DATA, message, hint, field="settings.block_size", value=str(block_size))
        return Windows(symbols, block_size)

    def split(
        self, samples: Samples, among: NDArray[np.int64], n: int, purpose: Split
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Hold out the last windows: the text ends with the test, and before it is the validation."""
        return hold_out(among, n)

    @property
    def evaluation_batch_size(self) -> int:
        """As many windows as make a bounded number of tokens."""
        return max(1, _EVALUATION_TOKENS // self.config.block_size)

    def size(self, batch: Batch) -> int:
        """Count what is predicted: B * T."""
        tokens = batch["tokens"]
        return tokens.shape[0] * (tokens.shape[1] - 1)

    # Model

    def network(self, info: DataInfo) -> nn.Module:
        """A GPT over the vocabulary."""
        config = self.config
        n_symbols = len(Vocabulary.from_json(info.facts))
        return GPT(Shape(n_symbols, config.block_size, config.n_layer, config.n_head, config.n_embd, config.dropout))

    def optimizer(self, model: nn.Module) -> Optimizer:
        """AdamW, which lets matrices decay and leaves the norms' gains alone."""
        matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
        gains = [parameter for parameter in model.parameters() if parameter.dim() < 2]
        groups = [
            {"params": matrices, "weight_decay": self.config.weight_decay},
            {"params": gains, "weight_decay": 0.0},
        ]
        return AdamW(groups, lr=self.config.lr, betas=(0.9, self.config.beta2))

    @property
    def clip_norm(self) -> float:
        """The setting; 0 stands for none."""
        return self.config.clip or math.inf

    def rate(self, at: Moment) -> float:
        """Rise along a line over the warm-up, then fall along a cosine to min_lr at the last step."""
        warmup, lowest = self.config.warmup, min(1.0, self.config.min_lr / self.config.lr)
        if at.step < warmup:
            return (at.step + 1) / (warmup + 1)
        done = (at.step - warmup) / max(1, at.steps_per_epoch * at.epochs - warmup)
        return lowest + (1 - lowest) * (1 + math.cos(math.pi * done)) / 2

    # A step, an evaluation, a use

    def training_loss(
        self, model: nn.Module, batch: Batch, draw: Draw | None
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Cross-entropy of the symbol that comes next, in nats a symbol; and in bits a character."""
        assert draw is not None  # an evaluation is its own
        inputs, targets = _inputs_and_targets(batch)
        generator = _generator(draw, inputs.device) if self.config.dropout else None
        loss = _cross_entropy(model(inputs, generator), targets)
        bits = loss.detach() / math.log(2)
        if self.config.vocabulary == "bytes":
            bits = bits * (targets.numel() / Vocabulary().begins_character(targets).sum().clamp(min=1))
        return loss, {"bits_per_char": bits}

    def evaluation(self, info: DataInfo, split: Split) -> Evaluation:
        """Begin to read windows in order."""
        return Reading(Vocabulary.from_json(info.facts), self.config.seed, split)

    def use(
        self, name: str, model: nn.Module, info: DataInfo, inputs: Sequence[Path], options: Mapping[str, Value]
    ) -> Iterator[Mapping[str, Value]]:
        """Write on from a prompt: {"text": a piece}."""
        if name != SAMPLE.name:
            yield from super().use(name, model, info, inputs, options)
        manner = Manner(float(options["temperature"]), int(options["top_k"]), int(options["seed"]))
        vocabulary = Vocabulary.from_json(info.facts)
        prompt, length = str(options["prompt"]), int(options["length"])
        for piece in written(cast(GPT, model), vocabulary, prompt, length, manner):
            yield {"text": piece}


class Reading:
    """How well a model expects what it reads."""

    def __init__(self, vocabulary: Vocabulary, seed: int, split: Split) -> None:
        self._vocabulary = vocabulary
        self._seed = seed
        self._split = split
        self._nats = 0.0
        self._symbols = 0
        self._characters = 0

    def add(self, model: nn.Module, batch: Batch) -> None:
        """See Evaluation."""
        inputs, targets = _inputs_and_targets(batch)
        begins = self._vocabulary.begins_character(targets)
        self._nats += _cross_entropy(model(inputs), targets).item() * targets.numel()
        self._symbols += targets.numel()
        self._characters += targets.numel() if begins is None else int(begins.sum())

    def metrics(self) -> Mapping[str, float]:
        """See Evaluation."""
        bits = self._nats / math.log(2)
        return {"bits_per_char": bits / max(1, self._characters), "loss": self._nats / max(1, self._symbols)}

    def results(self, model: nn.Module) -> Sequence[Result]:
        """What the model writes, by the same draws each time."""
        if self._split == "test":
            return []
        manner = Manner(seed=self._seed)
        text = "".join(written(cast(GPT, model), self._vocabulary, "", _SAMPLE_LENGTH, manner))
        return [Text("sample", "What the model writes", text)]


def _inputs_and_targets(batch: Batch) -> tuple[Tensor, Tensor]:
    tokens = batch["tokens"]
    return tokens[:, :-1], tokens[:, 1:]


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean, in float32, of [B, T, V] and [B, T]."""
    return functional.cross_entropy(logits.flatten(0, 1).to(torch.float32), targets.flatten())


def _generator(draw: Draw, device: torch.device) -> Generator:
    """A generator for the masks of a step: what it draws follows from the batch's draw."""
    high, low = (draw.uniforms(Stream.DROPOUT, 2)[0] * np.float32(2**24)).astype(np.int64)
    return Generator(device).manual_seed(int(high) << 24 | int(low))


def _check_varied(counts: NDArray[np.int64]) -> None:
    """Refuse a text of which nothing can be learnt."""
    different = np.flatnonzero(counts)
    if len(different) == 0:
        raise M1Error(Reason.BAD_DATA, "the text is empty", "give one of some thousand characters", field="data")
    if len(different) == 1:
        message = f"the text has no character but {chr(different[0])!r}, so there is nothing to learn"
        raise M1Error(Reason.BAD_DATA, message, "give a text of different characters", field="data")
