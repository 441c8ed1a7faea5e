"""Columns: what a dataset has, and what a recipe needs of one.

A dataset is a table for each split ("train", "test"), of named columns. A recipe says which kinds of columns it needs
and how they are to be read (an image's size); a source says which kinds it has. What does not fit is refused before a
job is stored, in a sentence that names both. Imports neither NumPy nor torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from m1.errors import M1Error, Reason, shortened
from m1.settings import Setting, Value, resolve

Kind = Literal["image", "label", "text", "tokens", "vector", "caption"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# How a kind of column is called in a sentence.
_WORDS: Mapping[str, str] = {
    "image": "images",
    "label": "a label for each",
    "text": "text",
    "tokens": "tokens",
    "vector": "vectors of numbers",
    "caption": "captions",
}


@dataclass(frozen=True)
class Need:
    """A column that a recipe needs, and how it is to be read: of an image its `size` in pixels and its `fit`.

    An option's value that begins with "$" is that of the setting of this name: Need("image", {"size": "$size"}).
    """

    kind: Kind
    options: Mapping[str, str] = field(default_factory=dict)

    def with_settings(self, settings: Mapping[str, Value]) -> Need:
        """This need, with the settings' values in place of their names."""
        return Need(
            self.kind,
            {
                key: str(settings[value[1:]]) if value.startswith("$") else value
                for key, value in sorted(self.options.items())
            },
        )

    @property
    def words(self) -> str:
        """In a sentence: "images of 64 px (crop)"."""
        if self.kind == "image" and "size" in self.options:
            fit = f" ({self.options['fit']})" if "fit" in self.options else ""
            return f"images of {self.options['size']} px{fit}"
        return _WORDS[self.kind]


# How an image may be read. "squeeze" at 32 pixels on white is what 0.1.0 did.
IMAGE_OPTIONS = (
    Setting("size", "int", 32, "Side of the square that an image becomes.", minimum=8, maximum=1024, unit="px"),
    Setting(
        "fit",
        "str",
        "squeeze",
        "How an image becomes a square: resized whatever its shape, cut to its centre, or set on the background.",
        choices=("squeeze", "crop", "pad"),
    ),
    Setting(
        "background", "str", "white", "Colour under what is transparent and beside what is padded: a name or #rrggbb."
    ),
)
_COLOURS = {"white": "#ffffff", "black": "#000000", "grey": "#808080", "gray": "#808080"}
_COLOUR = re.compile("#[0-9a-f]{6}")

# What 0.1.0 read, whatever the recipe.
IMAGES_OF_32 = (Need("image", {"fit": "squeeze", "size": "32"}), Need("label"))


@dataclass(frozen=True)
class Column:
    """A column of a dataset, as it is stored: one value for each row."""

    name: str
    kind: Kind
    dtype: str
    """NumPy's name of it: "uint8"."""
    shape: Sequence[int] = ()
    """Of one row; empty for a number, and for what varies in length (text)."""
    options: Mapping[str, str] = field(default_factory=dict)
    """How it was read."""
    classes: Sequence[str] = ()
    """Of a label: their names, in the order of their numbers."""

    @property
    def words(self) -> str:
        """In a sentence."""
        return Need(self.kind, self.options).words


Schema = Sequence[Column]


def image_need(options: Mapping[str, object]) -> Need:
    """The need for images that are read with these options, defaults for the rest; equal needs come out equal.

    Raises:
        M1Error: INVALID_SETTING, for an option that is unknown or out of bounds.
    """
    values = resolve(IMAGE_OPTIONS, options)
    read = {"fit": str(values["fit"]), "size": str(values["size"])}
    background = str(values["background"]).lower()
    colour = _COLOURS.get(background, background)
    if not _COLOUR.fullmatch(colour):
        raise M1Error(
            Reason.INVALID_SETTING,
            f'the setting background="{shortened(background, 60)}" is not a colour',
            "background takes white, black, grey or #rrggbb",
            field="settings.background",
            value=shortened(background, 60),
        )
    # White is not named: it is what 0.1.0 knows nothing of.
    return Need("image", read if colour == "#ffffff" else {"background": colour, **read})


def rgb_of(colour: str) -> tuple[int, int, int]:
    """The parts of "#rrggbb", each from 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def normalised(needs: Sequence[Need]) -> tuple[Need, ...]:
    """The same needs with every option that is not given, in one order, so that one way of reading has one key.

    Raises:
        M1Error: INVALID_SETTING, for an option that is unknown or out of bounds.
    """
    found = {}
    for need in needs:
        if need.kind != "image" and need.options:
            resolve((), need.options)
        found[need.kind] = image_need(need.options) if need.kind == "image" else need
    return tuple(found[kind] for kind in KINDS if kind in found)


def key_of_needs(needs: Sequence[Need]) -> str:
    """A short hash of how a source is read; empty for what 0.1.0 read, so that its cache stays good."""
    if tuple(needs) == IMAGES_OF_32:
        return ""
    text = json.dumps([asdict(need) for need in needs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def words_of(parts: Sequence[Need] | Sequence[Column]) -> str:
    """In a sentence: "images of 64 px (crop) and a label for each"."""
    words = [part.words for part in parts]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1] if words else ""])) or "nothing"


def kind_words(kinds: Sequence[Kind]) -> str:
    """Kinds of columns in a sentence: "images and a label for each"."""
    return words_of([Need(kind) for kind in kinds])


def fits(needs: Sequence[Need], kinds: Sequence[str]) -> bool:
    """Return True if a source that has these kinds of columns gives all that is needed."""
    return all(need.kind in kinds for need in needs)


def differing(before: Schema, now: Mapping[str, Column]) -> str:
    """Say which column is not what it was, for a model that was made for the ones before; empty: they are the same."""
    for column in before:
        other = now.get(column.name)
        if other is None or (other.kind, list(other.shape)) != (column.kind, list(column.shape)):
            is_now = f"{other.kind} {list(other.shape)}" if other else "not there"
            return f"{column.name} was {column.kind} {list(column.shape)}, is {is_now}"
        if list(other.classes) != list(column.classes):
            gone = [name for name in column.classes if name not in other.classes]
            new = [name for name in other.classes if name not in column.classes]
            words = [f"without {_few(gone)}" if gone else "", f"with {_few(new)}" if new else ""]
            change = " and ".join(filter(None, words)) or "in another order"
            return f"{column.name} has {len(other.classes)} classes, {change}, and had {len(column.classes)}"
    return ""


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(f'"{name}"' for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def needs_from_json(data: Sequence[Mapping[str, Any]]) -> tuple[Need, ...]:
    """Needs from plain data."""
    return tuple(Need(need["kind"], dict(need["options"])) for need in data)
