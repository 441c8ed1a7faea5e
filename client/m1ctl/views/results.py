"""Results as a person reads them: a list, a table with its units, a matrix where a table says that it is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from m1.units import format_bytes
from m1.v1 import result_pb2

from m1ctl.output import one_line, table
from m1ctl.views.formatting import ABSENT
from m1ctl.views.metrics import format_value

_MOST_MATRIX_COLUMNS = 12
_KINDS: Mapping[int, str] = {
    result_pb2.RESULT_KIND_TABLE: "table",
    result_pb2.RESULT_KIND_TEXT: "text",
    result_pb2.RESULT_KIND_IMAGE: "image",
}


def result_table(results: Iterable[result_pb2.Result]) -> str:
    """Return a table of results."""
    rows = [
        (
            result.name,
            kind_word(result),
            str(result.step),
            format_bytes(result.size_bytes),
            result.title,
        )
        for result in results
    ]
    return table(("NAME", "KIND", "STEP", "SIZE", "TITLE"), rows, right=(2, 3))


def kind_word(result: result_pb2.Result) -> str:
    """Return a result's kind: "table"; one of a newer daemon is shown by its number."""
    return _KINDS.get(result.kind, f"kind {result.kind}")


def table_page(content: Mapping[str, Any]) -> str:
    """Return a result's table: as a matrix where it has a pivot that fits, else row by row.

    Args:
        content: "columns" with a name and a unit each, "rows", and perhaps "pivot": the columns (row, column, value).
    """
    columns = [(str(column.get("name", "")), str(column.get("unit", ""))) for column in content["columns"]]
    rows: list[list[Any]] = content["rows"]
    pivot = content.get("pivot")
    names = [name for name, _ in columns]
    if isinstance(pivot, list) and len(pivot) == 3 and all(name in names for name in pivot):
        row, column, value = (names.index(name) for name in pivot)
        matrix = _matrix(rows, row, column, value)
        if len(matrix.columns) <= _MOST_MATRIX_COLUMNS:
            return matrix.page(names[row], names[column], columns[value][1])
    cells = [[cell(entry, unit) for entry, (_, unit) in zip(line, columns, strict=False)] for line in rows]
    numbers = [index for index in range(len(columns)) if all(_is_number(line[index]) for line in rows)]
    return table([name.upper() for name in names], cells, right=numbers)


class _Matrix:
    """The values of a table by the words of two of its columns, each in the order in which they came."""

    def __init__(self, values: Mapping[tuple[Any, Any], Any]) -> None:
        self.rows = list(dict.fromkeys(row for row, _ in values))
        self.columns = list(dict.fromkeys(column for _, column in values))
        self._values = values

    def page(self, row_name: str, column_name: str, unit: str) -> str:
        """Return rows and columns with their words; a value that is not there is absent."""
        # Of the same things, the columns come in the order of the rows.
        order = {word: place for place, word in enumerate(self.rows)}
        columns = sorted(self.columns, key=lambda word: order.get(word, len(order)))
        header = [f"{row_name} \\ {column_name}".upper(), *(cell(word) for word in columns)]
        lines = [[cell(row), *(cell(self._values.get((row, column)), unit) for column in columns)] for row in self.rows]
        return table(header, lines, right=range(1, len(header)))


def _matrix(rows: Sequence[Sequence[Any]], row: int, column: int, value: int) -> _Matrix:
    return _Matrix({(line[row], line[column]): line[value] for line in rows})


def cell(value: Any, unit: str = "") -> str:
    """Return a value of a table; a fraction as percent."""
    if value is None:
        return ABSENT
    if isinstance(value, float):
        return format_value(value, unit)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"{text} {unit}" if unit and _is_number(value) else text


def answer_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of what a model answers with, the file first."""
    names = sorted({name for row in rows for name in row})
    return sorted(names, key=lambda name: name != "file")


def answer_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of answers."""
    names = answer_columns(rows)
    numbers = [index for index, name in enumerate(names) if all(_is_number(row.get(name)) for row in rows)]
    return table(
        [name.upper() for name in names], [[one_line(cell(row.get(name))) for name in names] for row in rows], numbers
    )


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
