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
from m1.jobdir import result_path, results_path
from m1.limits import RESULT_BYTES, RESULT_NAME

from m1train.job.journal import Journal
from m1train.task.recipe import Picture, Result, Table, Text, UnfitError

log = logging.getLogger(__name__)


class Results:
    """The results of one job."""

    def __init__(self, directory: Path, journal: Journal) -> None:
        self._directory = directory
        self._journal = journal

    def store(self, results: Sequence[Result], step: int) -> None:
        """Store what was made after a step, in place of what had the same names.

        A disk that refuses costs the result, not the training.
        """
        for result in results:
            if not RESULT_NAME.fullmatch(result.name):
                raise UnfitError("evaluation", f'gives a result called "{result.name}"', "use a-z, 0-9, - and _")
            content, form, truncated = encoded(result)
            try:
                results_path(self._directory).mkdir(mode=0o700, exist_ok=True)
                replace_file(result_path(self._directory, result.name, form), content, durable=True)
            except OSError as error:
                log.warning("the result %s could not be stored: %s", result.name, error)
                message = f"the result {result.name} could not be stored ({error})"
                self._journal.append(records.Notice("warning", message))
                continue
            said = records.Result(result.name, form, result.title, step, len(content), time.time(), truncated)
            self._journal.append(said)


Form = Literal["table", "text", "image"]


def encoded(result: Result) -> tuple[bytes, Form, str]:
    """Make a result's file: its content, its form, and what was left out so that it is no larger than allowed."""
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
    columns = [{"name": name, "unit": table.units.get(name, "")} for name in table.columns]
    rows = [[_cell(value) for value in row] for row in table.rows]
    data = {"columns": columns, "rows": rows} | ({"pivot": list(table.pivot)} if table.pivot else {})
    content = json.dumps(data, ensure_ascii=False).encode(errors="replace")
    if len(content) <= RESULT_BYTES:
        return content, "table", table.truncated
    kept = len(rows) * RESULT_BYTES // len(content) * 9 // 10
    cut = Table(table.name, table.title, table.columns, table.rows[:kept], table.units, table.pivot)
    content, form, _ = _table(cut)
    return content, form, f"the first {kept:,} of {len(rows):,} rows"


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
            "evaluation", f'gives a picture "{picture.name}" of {file.tell():,} bytes', "draw a smaller one"
        )
    return file.getvalue()
