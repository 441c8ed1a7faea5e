"""Random samples of the columns that a task needs: by them a recipe is rehearsed and tuned, without a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from m1.columns import Column, Need
from numpy.typing import NDArray

from m1train.randomness import Draw, Stream
from m1train.task.recipe import AnyTask, DataInfo, Samples

N_CLASSES = 10
_LETTERS_OF_A_ROW, _VECTOR = 64, 16


def examples(task: AnyTask, needs: Sequence[Need], n: int) -> tuple[DataInfo, Samples]:
    """Make n random rows of each needed column, and the task's samples of them; a text is as long as n rows need."""
    columns: dict[str, Column] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for need in needs:
        column, values = _column(need, n, task.config.seed)
        columns[column.name] = column
        arrays.update(values)
    info = DataInfo(columns, task.facts(arrays))
    return info, task.samples(arrays, info)


def needs_of(task: AnyTask) -> list[Need]:
    """Give what a task needs, with its settings' values in place of their names."""
    return [need.with_settings(vars(task.config)) for need in task.needs]


def _column(need: Need, n: int, seed: int) -> tuple[Column, Mapping[str, NDArray[Any]]]:
    draw = Draw(seed, 0, np.arange(n, dtype=np.uint64))
    match need.kind:
        case "image":
            side = int(need.options.get("size", "32"))
            pixels = draw.uniforms(Stream.AUGMENTATION, side * side * 3) * 256
            image = Column("image", "image", "uint8", (side, side, 3), need.options)
            return image, {"image": pixels.astype(np.uint8).reshape(n, side, side, 3)}
        case "label":
            classes = tuple(str(number) for number in range(N_CLASSES))
            return Column("label", "label", "int64", (), {}, classes), {
                "label": np.arange(n, dtype=np.int64) % N_CLASSES
            }
        case "vector":
            vector = Column("vector", "vector", "float32", (_VECTOR,), need.options)
            return vector, {"vector": draw.uniforms(Stream.AUGMENTATION, _VECTOR)}
        case _:
            letters = (draw.uniforms(Stream.AUGMENTATION, _LETTERS_OF_A_ROW) * 95 + 32).astype(np.uint8)
            offsets = np.arange(n + 1, dtype=np.int64) * _LETTERS_OF_A_ROW
            text = Column(need.kind, need.kind, "uint8", (), need.options)
            return text, {need.kind: letters.reshape(-1), f"{need.kind}_offsets": offsets}
