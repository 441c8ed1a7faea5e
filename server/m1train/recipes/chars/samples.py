"""A text as symbols, and the windows of it that a step learns from.

A text comes as UTF-8 bytes. A vocabulary is learnt once, of what training may see, and is kept in every checkpoint.
Whatever length a text has, it is read in parts, and takes two bytes a character of memory, or none as bytes.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from m1.errors import M1Error, Reason, shortened
from numpy.typing import NDArray

from m1train.randomness import Draw, Stream

MOST_CHARACTERS = 512
# What stands in a text for a character that the vocabulary has not.
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_PART_BYTES = 2**22
_CODE_POINTS = 0x110000

Bytes = NDArray[np.uint8]
Symbols = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True)
class Vocabulary:
    """The symbols of a text: its characters in order and then one for all others; or, without any, the 256 bytes."""

    characters: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Vocabulary:
        """From plain data."""
        return cls(data["characters"])

    def to_json(self) -> dict[str, str]:
        """As plain data."""
        return {"characters": self.characters}

    def __len__(self) -> int:
        return len(self.characters) + 1 if self.characters else 256

    @property
    def unknown(self) -> int | None:
        """The symbol for all other characters; bytes have none."""
        return len(self.characters) if self.characters else None

    def encoded(self, text: Bytes) -> Symbols:
        """The symbols of a text; as bytes, the very same array."""
        if not self.characters:
            return text
        table = np.full(_CODE_POINTS, len(self.characters), np.uint16)
        table[[ord(character) for character in self.characters]] = np.arange(len(self.characters))
        symbols, end = np.empty(n_characters(text), np.uint16), 0
        for codes in _code_points(text):
            symbols[end : end + len(codes)] = table[codes]
            end += len(codes)
        return symbols

    def encoded_prompt(self, prompt: str) -> Symbols:
        """The symbols of what a text is to begin with.

        Raises:
            M1Error: INVALID_ARGUMENT for a character that the model does not know.
        """
        if self.characters:
            for character in prompt:
                if character not in self.characters:
                    raise M1Error(
                        Reason.INVALID_ARGUMENT,
                        f"the prompt has {character!r}, which the model has never seen",
                        f"it knows {shortened(self.characters.strip(), 200)}",
                        field="prompt",
                        value=character,
                    )
        return self.encoded(np.frombuffer(prompt.encode("utf-8", "replace"), np.uint8))

    def decoder(self) -> codecs.IncrementalDecoder | None:
        """What makes text of bytes that come one after the other; characters need none."""
        return None if self.characters else codecs.getincrementaldecoder("utf-8")("replace")

    def begins_character(self, symbols: Any) -> Any:
        """Where a character begins, of an array or a tensor; None if each symbol is a character."""
        return None if self.characters else (symbols & 0xC0) != 0x80


def most_frequent(counts: NDArray[np.int64]) -> Vocabulary:
    """The vocabulary of a text, by how often each code point occurs in it."""
    known = np.flatnonzero(counts)
    frequent = known[np.argsort(-counts[known], kind="stable")][:MOST_CHARACTERS]
    return Vocabulary("".join(map(chr, np.sort(frequent))))


def count_characters(text: Bytes, n: int) -> NDArray[np.int64]:
    """How often each code point occurs among the first n characters of a text: [0x110000]."""
    counts = np.zeros(_CODE_POINTS, np.int64)
    for codes in _code_points(text):
        counts += np.bincount(codes[:n], minlength=_CODE_POINTS)
        n = max(0, n - len(codes))
    return counts


def count_bytes(text: Bytes) -> NDArray[np.int64]:
    """How often each byte occurs in a text: [256]."""
    counts = np.zeros(256, np.int64)
    for start in range(0, len(text), _PART_BYTES):
        counts += np.bincount(text[start : start + _PART_BYTES], minlength=256)
    return counts


def n_characters(text: Bytes) -> int:
    """How many characters a text has."""
    return sum(len(codes) for codes in _code_points(text))


def _code_points(text: Bytes) -> Iterator[NDArray[np.uint32]]:
    """The text's code points, part by part; what is not UTF-8 is U+FFFD."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for start in range(0, len(text), _PART_BYTES):
        part = text[start : start + _PART_BYTES]
        decoded = decoder.decode(part.tobytes(), final=start + _PART_BYTES >= len(text))
        yield np.frombuffer(decoded.encode("utf-32-le"), np.uint32)


@dataclass(frozen=True)
class Windows:
    """The windows of a text: sample i begins at symbol i * T, has T symbols, and for each the one that comes next.

    In training it begins up to T - 1 symbols later, by its draw: each epoch reads the whole text in other windows.
    """

    symbols: Symbols
    block_size: int

    def __len__(self) -> int:
        return n_windows(len(self.symbols), self.block_size)

    def take(self, indices: NDArray[np.int64], draw: Draw | None) -> Mapping[str, NDArray[np.int64]]:
        """Give "tokens": [B, T + 1]."""
        starts = indices * self.block_size
        if draw is not None:
            later = (draw.uniforms(Stream.SHIFT, 1)[:, 0] * np.float32(self.block_size)).astype(np.int64)
            starts = np.minimum(starts + later, len(self.symbols) - self.block_size - 1)
        return {"tokens": self.symbols[starts[:, None] + np.arange(self.block_size + 1)].astype(np.int64)}


def n_windows(n_symbols: int, block_size: int) -> int:
    """How many windows a text has: of each, every symbol has one that comes next."""
    return max(n_symbols - 1, 0) // block_size


def hold_out(among: NDArray[np.int64], n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hold out the last n of some windows; the others, and those.

    The window before them is left out of both: a training window that begins later ends inside the one after it.
    """
    first = len(among) - n
    return among[: max(0, first - 1)] if n else among, among[first:]
