"""Writing on: one symbol after the other, each drawn from what the model expects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from m1train.randomness import Draw, Stream
from m1train.recipes.chars.model import GPT
from m1train.recipes.chars.samples import Vocabulary

# Symbols that are written before they are given out.
_PIECE = 16


@dataclass(frozen=True)
class Manner:
    """How a symbol is chosen. What is random follows from the seed alone; no generator of a training is touched."""

    temperature: float = 0.8
    """0: the likeliest."""
    top_k: int = 0
    """Only so many of the likeliest; 0: all."""
    seed: int = 0


def written(model: GPT, vocabulary: Vocabulary, prompt: str, length: int, manner: Manner) -> Iterator[str]:
    """The prompt, and `length` symbols more, in pieces.

    Raises:
        M1Error: INVALID_ARGUMENT for a prompt that the vocabulary does not have.
    """
    symbols = [int(symbol) for symbol in vocabulary.encoded_prompt(prompt or _beginning(vocabulary))]
    if prompt:
        yield prompt
    decoder = vocabulary.decoder()
    block_size = model.shape.block_size
    draw = Draw(manner.seed, 0, np.zeros(1, np.uint64))
    uniforms = draw.uniforms(Stream.SAMPLE, length)[0]
    device = model.symbols.weight.device
    for start in range(0, length, _PIECE):
        piece: list[int] = []
        for uniform in uniforms[start : start + _PIECE]:
            context = torch.tensor([symbols[-block_size:]], device=device)
            with torch.inference_mode():
                logits = model(context)[0, -1].to("cpu", torch.float32).numpy().astype(np.float64)
            if vocabulary.unknown is not None:
                logits[vocabulary.unknown] = -np.inf  # it stands for no character that could be written
            symbols.append(choose(logits, float(uniform), manner))
            piece.append(symbols[-1])
        if decoder is None:
            yield "".join(vocabulary.characters[symbol] for symbol in piece)
        else:
            yield decoder.decode(bytes(piece), final=start + _PIECE >= length)


def choose(logits: NDArray[np.float64], uniform: float, manner: Manner) -> int:
    """Choose a symbol by its logit [V] and a number of [0, 1): the inverse of the distribution function."""
    if manner.temperature == 0:
        return int(logits.argmax())
    scaled = (logits - logits.max()) / manner.temperature
    if 0 < manner.top_k < len(scaled):
        scaled[np.argsort(-scaled, kind="stable")[manner.top_k :]] = -np.inf
    reached = np.exp(scaled).cumsum()
    return int(np.searchsorted(reached, uniform * reached[-1], side="right"))


def _beginning(vocabulary: Vocabulary) -> str:
    """What stands before the first symbol where there is no prompt: the end of a line, if the model knows it."""
    known = vocabulary.characters
    return "\n" if not known or "\n" in known else known[0]
