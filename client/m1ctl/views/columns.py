"""The columns of a dataset in words. The one file of the client that knows the kinds of data."""

from __future__ import annotations

from collections.abc import Sequence

from m1.v1 import dataset_pb2, recipe_pb2


def column_words(column: dataset_pb2.Column) -> str:
    """Return a column as it was read: "images 160 px crop", "5 classes", "text"."""
    if column.kind == "image":
        size = column.options.get("size") or "x".join(str(side) for side in column.shape[:2])
        return " ".join(filter(None, ["images", f"{size} px" if size else "", column.options.get("fit", "")]))
    if column.kind == "label":
        return f"{column.class_count} class{'' if column.class_count == 1 else 'es'}"
    if column.kind == "vector" and column.shape:
        return f"vectors of {column.shape[0]}"
    return {"text": "text", "tokens": "tokens", "vector": "vectors", "caption": "captions"}.get(
        column.kind, column.kind
    )


def columns_words(columns: Sequence[dataset_pb2.Column]) -> str:
    """Return all columns in words: "images 160 px crop, 5 classes"."""
    return ", ".join(map(column_words, columns))


def needs_words(recipe: recipe_pb2.Recipe) -> str:
    """Return what a recipe needs, with default settings: "images of 64 px (crop) and a label for each"."""
    if recipe.reads_data:
        return "a file or folder that it reads itself"
    from m1.columns import Need, words_of

    defaults = {setting.name: _default(setting) for setting in recipe.settings}
    try:
        return words_of([Need(n.kind, dict(n.options)).with_settings(defaults) for n in recipe.needs])  # type: ignore[arg-type]
    except KeyError:  # a kind of a newer daemon
        return ", ".join(need.kind for need in recipe.needs)


def _default(setting: recipe_pb2.Setting) -> str:
    value = setting.default
    if value.WhichOneof("kind") == "number_value":
        return f"{value.number_value:g}"
    return value.string_value
