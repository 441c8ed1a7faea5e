"""What m1d 0.1.0 wrote, in the words of this version: the one place that knows how it was.

0.1.0 had one task, a classifier of images: every training of its time measures accuracy and loss, and a sample is an
image. A job was flat (37 fields in one object, without a kind), and its result on the test set was a report inside it.
What is converted here is plain data, before anything is decoded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from m1.journal import Report, Result
from m1.metrics import LOSS, Metric
from m1.spec import JobKind

METRICS = (
    Metric("accuracy", "fraction", "more", "The fraction of the samples whose class is called right."),
    LOSS,
)
SAMPLE_UNIT = "images"
_SPEC = ("recipe", "data", "settings", "profile", "priority", "retries", "from_checkpoint", "fixed")
_ATTEMPT = ("journal_offset", "journal_damaged", "begun_at_step", "exited", "process")
_WISH = ("want", "checkpoint_request", "checkpoint_served", "parked")
_KEPT = ("create_time", "reason", "failures", "approximate", "not_finite_step", "progress", "latest", "error", "times")
_REPORT = "report"
# What the first bodies did not have yet.
_NOT_AT_FIRST: Mapping[str, Any] = {
    "from_checkpoint": "",
    "seed": "",
    "approximate": [],
    "findings": [],
    "recipe_file": None,
    "purpose": "train",
    "fixed": [],
}


def kind_of(purpose: str, data: str) -> JobKind:
    """Tell what a job was: its purpose says if it was a tuning, and of the others all that train had data."""
    if purpose == "tune":
        return "tuning"
    return "training" if data else "measurement"


def declared_of(kind: JobKind) -> tuple[Sequence[Metric], str]:
    """Tell what a job measures, and what a sample of it is called."""
    return (METRICS if kind == "training" else (), SAMPLE_UNIT if kind != "measurement" else "")


def is_old_job(body: Mapping[str, Any]) -> bool:
    """Return True if a stored job's body is of 0.1.0."""
    return "spec" not in body


def job_body(body: Mapping[str, Any], priority: int) -> dict[str, Any]:
    """Convert a stored job's body; its priority was a column only.

    Raises:
        KeyError: it is not one.
    """
    flat = {**_NOT_AT_FIRST, **body, "priority": priority}
    return {
        **{name: flat[name] for name in _KEPT},
        "findings": flat["findings"],
        "parent_copy": flat["seed"],
        "spec": {
            **{name: flat[name] for name in _SPEC},
            **_spec_parts(flat),
        },
        "attempt": {"number": flat["attempt"], **{name: flat[name] for name in _ATTEMPT}},
        "wish": {name: flat[name] for name in _WISH},
        "from_0_1_0": {_REPORT: flat[_REPORT]} if flat.get(_REPORT) else {},
    }


def _spec_parts(flat: Mapping[str, Any]) -> dict[str, Any]:
    kind = kind_of(flat.get("purpose", "train"), flat["data"])
    metrics, sample_unit = declared_of(kind)
    return {
        "kind": kind,
        "recipe_file": flat.get("recipe_file"),
        "metrics": [metric.to_json() for metric in metrics],
        "sample_unit": sample_unit,
    }


def is_old_spec(data: object) -> bool:
    """Return True if the content of a job's `spec.json` is of 0.1.0."""
    return isinstance(data, dict) and "kind" not in data


def spec(data: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the content of a `spec.json`; what 0.1.0 did not write there is left out.

    Raises:
        KeyError: it is not one.
    """
    known = ("job_id", "recipe", "data", "data_root", "settings", "profile", "fixed")
    return {
        **{name: data[name] for name in known if name in data},
        **_spec_parts(data),
        "has_parent": data.get("seeded", False),
    }


def of_step(names: Sequence[str]) -> bool:
    """Tell whether metrics whose writer did not say it were measured in a step: those of a step had this prefix."""
    return all(name.startswith("train/") for name in names)


# The result on the test set


@dataclass(frozen=True)
class MadeResult:
    """A result that stands in no file."""

    result: Result
    content: bytes


def remembered(report: Report) -> dict[str, Any]:
    """Keep a report that a process of 0.1.0 has written under this version's daemon."""
    return {_REPORT: asdict(report)}


def results(from_0_1_0: Mapping[str, Any], step: int, time: float) -> list[MadeResult]:
    """Make the results of what a job of 0.1.0 said of its test.

    Args:
        from_0_1_0: as `job_body` and `remembered` give it.
        step: the steps that it had trained.
        time: when it said that, in seconds since the epoch.
    """
    said = from_0_1_0.get(_REPORT)
    if not said:
        return []
    names, counts = said["classes"], said["confusion"]
    pairs = [
        [true, predicted, count]
        for true, row in zip(names, counts, strict=True)
        for predicted, count in zip(names, row, strict=True)
        if count
    ]
    each = [
        [name, None if accuracy is None or math.isnan(accuracy) else accuracy, sum(row)]
        for name, accuracy, row in zip(names, said["class_accuracy"], counts, strict=True)
    ]
    columns = [("true", ""), ("predicted", ""), ("count", "images")]
    confusion = _table(columns, pairs) | {"pivot": ["true", "predicted", "count"]}
    classes = _table([("class", ""), ("accuracy", "fraction"), ("samples", "images")], each)
    return [
        _made("classes", "How many images of each class are called right.", classes, step, time),
        _made("confusion", "What the images of each class are called.", confusion, step, time),
    ]


def _table(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    return {"columns": [{"name": name, "unit": unit} for name, unit in columns], "rows": rows}


def _made(name: str, title: str, table: Mapping[str, Any], step: int, time: float) -> MadeResult:
    content = json.dumps(table, ensure_ascii=False).encode()
    return MadeResult(Result(name, "table", title, step, len(content), time), content)
