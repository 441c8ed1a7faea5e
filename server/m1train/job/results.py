"""Results: tables, texts and pictures as files of the job, replaced in one step, bounded, and said in the journal."""

from __future__ import annotations

import io
import json
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from m1 import journal as records
from m1.durable import replace_file
from m1.errors import shortened
from m1.jobdir import result_path
from m1.limits import MOST_RESULTS, RESULT_BYTES, RESULT_NAME
from m1.process.journal import Journal

from m1train.task.recipe import Picture, Result, Table, Text, UnfitError

log = logging.getLogger(__name__)

_LONGEST_TITLE = 500


class Results:
    """The results of one job."""

    def __init__(self, directory: Path, journal: Journal) -> None:
        self._directory = directory
        self._journal = journal
        self._refused: set[str] = set()

    def store(self, results: Sequence[Result], step: int) -> None:
        """Store what was made after a step, in place of what had the same names.

        What cannot be stored is said, and costs the result, not the training.
        """
        for result in results:
            try:
                self._store(result, step)
            except (OSError, UnfitError) as error:
                why = f"{error}: {error.hint}" if isinstance(error, UnfitError) else str(error)
                message = f"the result {shortened(result.name)} could not be stored ({why})"
                log.warning("%s", message)
                if result.name not in self._refused and len(self._refused) < MOST_RESULTS:  # said once
                    self._journal.append(records.Notice("warning", message))
                    self._refused.add(result.name)

    def _store(self, result: Result, step: int) -> None:
        content, form, truncated = encoded(result)
        path = result_path(self._directory, result.name, form)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if not path.exists() and sum(1 for _ in path.parent.iterdir()) >= MOST_RESULTS:
            raise UnfitError("evaluation", f"the job has {MOST_RESULTS} results", "use the same names again")
        replace_file(path, content, durable=True)
        title, truncated = shortened(result.title, _LONGEST_TITLE), shortened(truncated, _LONGEST_TITLE)
        said = records.Result(result.name, form, title, step, len(content), time.time(), truncated)
        self._journal.append(said)


Form = Literal["table", "text", "image"]


def encoded(result: Result) -> tuple[bytes, Form, str]:
    """Make a result's file: its content, its form, and what was left out so that it is no larger than allowed.

    Raises:
        UnfitError: its name is none, or it cannot be made smaller.
    """
    if not RESULT_NAME.fullmatch(result.name):
        called = shortened(result.name)
        raise UnfitError("evaluation", f'evaluation gives a result called "{called}"', "use a-z, 0-9, - and _")
    match result:
        case Table():
            return _table(result)
        case Text():
            content = result.text.encode(errors="replace")
            if len(content) <= RESULT_BYTES:
                return content, "text", ""
            kept = content[:RESULT_BYTES].decode(errors="ignore").encode()
            return kept, "text", f"the first {len(kept):,} of {len(content):,} bytes"
        case Picture():
            return _png(result), "image", ""


def _table(table: Table) -> tuple[bytes, Form, str]:
    rows, kept = [[_cell(value) for value in row] for row in table.rows], len(table.rows)
    content = _table_of(table, rows)
    while len(content) > RESULT_BYTES:
        if kept == 0:
            raise UnfitError("evaluation", f'evaluation gives a table "{table.name}" too large', "use shorter columns")
        # Its first rows may be longer than the others.
        kept = kept * RESULT_BYTES // len(content) * 9 // 10
        content = _table_of(table, rows[:kept])
    cut = f"the first {kept:,} of {len(rows):,} rows" if kept < len(rows) else ""
    return content, "table", ", of ".join(filter(None, (cut, table.truncated)))


def _table_of(table: Table, rows: Sequence[Sequence[object]]) -> bytes:
    columns = [{"name": name, "unit": table.units.get(name, "")} for name in table.columns]
    data = {"columns": columns, "rows": rows} | ({"pivot": list(table.pivot)} if table.pivot else {})
    return json.dumps(data, ensure_ascii=False).encode(errors="replace")


def _cell(value: object) -> object:
    """A value that JSON has: what is not finite stands as its word."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _png(picture: Picture) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture.pixels).save(file, "PNG", optimize=True)
    if file.tell() > RESULT_BYTES:
        raise UnfitError(
            "evaluation", f'evaluation gives a picture "{picture.name}" of {file.tell():,} bytes', "draw a smaller one"
        )
    return file.getvalue()
