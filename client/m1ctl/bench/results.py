"""The document of a benchmark: written by `m1ctl bench`, read and compared by `m1ctl bench compare`."""

from __future__ import annotations

import datetime
import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from m1.errors import M1Error, Reason, shortened
from m1.v1 import job_pb2, system_pb2

from m1ctl.output import table
from m1ctl.views.formatting import ABSENT

FORMAT = "m1d bench 1"
_FIELDS = ("value", "low", "high")


@dataclass(frozen=True)
class Result:
    """One benchmark: when and on what, and what was found, by key."""

    about: Mapping[str, Any]
    findings: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Compared:
    """A finding in two results."""

    key: str
    title: str
    unit_a: str | None
    """None, like the value, where the result has no such finding."""
    unit_b: str | None
    a: float | None
    b: float | None
    ratio: float | None
    """b over a; None where they have not one unit, or it is no number."""
    apart: bool | None
    """True if the 95 % intervals do not overlap; None without both of them."""


def document(
    findings: Sequence[job_pb2.Finding],
    info: system_pb2.GetSystemInfoResponse,
    topology: system_pb2.GetTopologyResponse,
    now: datetime.datetime,
) -> dict[str, Any]:
    """Return a result as plain data."""
    return {
        "format": FORMAT,
        "date": now.isoformat(timespec="seconds"),
        "machine": {
            "cpu": topology.cpu,
            "cores": {kind.name: kind.physical_cores for kind in topology.core_kinds},
            "memory_bytes": topology.memory_bytes,
            "platform": info.platform,
        },
        "versions": {"m1d": info.version, "python": info.python_version, "torch": info.torch_version},
        "findings": [_plain(finding) for finding in findings],
    }


def _plain(finding: job_pb2.Finding) -> dict[str, Any]:
    plain: dict[str, Any] = {"key": finding.key, "title": finding.title, "unit": finding.unit, "n": finding.n}
    plain |= {name: _finite(getattr(finding, name)) if finding.HasField(name) else None for name in _FIELDS}
    return plain | {"claimed": finding.claimed, "note": finding.note}


def _finite(value: float) -> float | None:
    """JSON has neither NaN nor the infinities."""
    return value if math.isfinite(value) else None


def read_result(path: Path) -> Result:
    """Return the result in a file.

    Raises:
        M1Error: FILE_NOT_FOUND; INVALID_ARGUMENT: it cannot be read, or is none.
    """
    hint = "m1ctl bench --out FILE writes one"

    def refused(problem: str) -> M1Error:
        return M1Error(Reason.INVALID_ARGUMENT, f'"{path}" {problem}', hint, field="file", value=str(path))

    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        message = f'file "{path}" does not exist'
        raise M1Error(Reason.FILE_NOT_FOUND, message, hint, field="file", value=str(path)) from None
    except OSError as error:
        raise refused(f"cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise refused("is not a benchmark result: it is not JSON") from error
    if not isinstance(data, dict) or not str(data.get("format", "")).startswith("m1d bench "):
        raise refused("is not a benchmark result")
    if data["format"] != FORMAT:
        raise refused(f'is of another version ("{data["format"]}"; this one reads "{FORMAT}")')
    rows = data.get("findings")
    if not isinstance(rows, list) or not all(map(_is_finding, rows)):
        raise refused("is damaged: its findings are not as m1ctl bench writes them")
    for key, count in Counter(row["key"] for row in rows).items():
        if count > 1:
            raise refused(f'is damaged: {count} of its findings are called "{shortened(key)}"')
    about = {name: data.get(name, "") for name in ("date", "machine", "versions")}
    if not _is_printable(about):
        raise refused("is damaged: its description is not as m1ctl bench writes it")
    return Result(about, {row["key"]: row for row in rows})


def to_text(plain: Mapping[str, Any]) -> str:
    """Return plain data as indented JSON that any reader takes.

    Raises:
        ValueError: for NaN and the infinities, which JSON does not have.
        RecursionError: it is too deep.
    """
    return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False)


def _is_printable(about: Mapping[str, Any]) -> bool:
    try:
        to_text(about)
    except (ValueError, RecursionError):
        return False
    return True


def _is_finding(row: object) -> bool:
    if not isinstance(row, dict):
        return False
    words = all(isinstance(row.get(name), str) for name in ("key", "title", "unit"))
    return words and all(row.get(name) is None or _is_number(row[name]) for name in _FIELDS)


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= sys.float_info.max  # neither of NaN nor of an integer that is too large for a float


def compare(a: Result, b: Result) -> list[Compared]:
    """Return every finding of both, in the order of the first; then what only the second has."""
    return [_compared(key, a.findings.get(key), b.findings.get(key)) for key in {**a.findings, **b.findings}]


def _compared(key: str, a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> Compared:
    known = a or b or {}
    same_unit = a is not None and b is not None and a["unit"] == b["unit"]
    value_a, value_b = (row.get("value") if row else None for row in (a, b))
    unit_a, unit_b = (row["unit"] if row else None for row in (a, b))
    ratio = _ratio(value_a, value_b) if same_unit else None
    apart = None
    if same_unit and a and b and all(row.get(edge) is not None for row in (a, b) for edge in ("low", "high")):
        apart = bool(a["high"] < b["low"] or b["high"] < a["low"])
    return Compared(key, known["title"], unit_a, unit_b, value_a, value_b, ratio, apart)


def _ratio(a: float | None, b: float | None) -> float | None:
    """Of b over a; None where it is no number that a float can hold."""
    if a is None or b is None or float(a) == 0:
        return None
    return _finite(float(b) / float(a))


def comparison_page(a: Result, b: Result, rows: Sequence[Compared]) -> str:
    """Return a table of both values, their ratio, and whether it is more than chance."""
    apart = {True: "yes", False: "no", None: ABSENT}
    lines = [(row.title, *_values_and_unit(row), _shown(row.ratio), apart[row.apart]) for row in rows]
    header = ("MEASURED", "A", "B", "UNIT", "B / A", "APART")
    return "\n".join([*_abouts(a, b), "", table(header, lines, right=(1, 2, 4))])


def _values_and_unit(row: Compared) -> tuple[str, str, str]:
    """Return both values and their unit; where the units differ, each value with its own."""
    if row.unit_a is not None and row.unit_b is not None and row.unit_a != row.unit_b:
        return _with_unit(row.a, row.unit_a), _with_unit(row.b, row.unit_b), "differ"
    return _shown(row.a), _shown(row.b), row.unit_a or row.unit_b or ""


def _with_unit(value: float | None, unit: str) -> str:
    return _shown(value) if value is None else f"{_shown(value)} {unit}"


def comparison_document(a: Result, b: Result, rows: Sequence[Compared]) -> dict[str, Any]:
    """Return the same as plain data."""
    return {"a": dict(a.about), "b": dict(b.about), "findings": [asdict(row) for row in rows]}


def _abouts(a: Result, b: Result) -> list[str]:
    return [f"{name}  {_words(result.about)}" for name, result in (("A", a), ("B", b))]


def _words(about: Mapping[str, Any]) -> str:
    machine, versions = about.get("machine"), about.get("versions")
    words = [str(about.get("date", ""))]
    if isinstance(machine, dict):
        words += [str(machine.get("cpu", "")), str(machine.get("platform", ""))]
    if isinstance(versions, dict):
        words += [f"{name} {version}" for name, version in versions.items()]
    return ", ".join(word for word in words if word)


def _shown(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.4g}"
