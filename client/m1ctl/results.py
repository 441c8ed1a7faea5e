"""The document of a benchmark: written by `m1ctl bench`, read and compared by `m1ctl bench compare`."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from m1.errors import M1Error, Reason
from m1.v1 import job_pb2, system_pb2

from m1ctl.figures import ABSENT
from m1ctl.output import table

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
    unit: str
    a: float | None
    b: float | None
    ratio: float | None
    """b over a."""
    apart: bool | None
    """Whether the 95 % intervals have no number in common; None without both of them."""


def document(
    findings: Sequence[job_pb2.Finding],
    info: system_pb2.GetSystemInfoResponse,
    topology: system_pb2.GetTopologyResponse,
    now: datetime.datetime,
) -> dict[str, Any]:
    """A result as plain data."""
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
    plain |= {name: getattr(finding, name) if finding.HasField(name) else None for name in _FIELDS}
    return plain | {"claimed": finding.claimed, "note": finding.note}


def read_result(path: Path) -> Result:
    """The result in a file.

    Raises:
        M1Error: INVALID_ARGUMENT: it cannot be read, or is none.
    """

    def refused(problem: str) -> M1Error:
        hint = "m1ctl bench --out FILE writes one"
        return M1Error(Reason.INVALID_ARGUMENT, f'"{path}" {problem}', hint, field="file", value=str(path))

    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise refused(f"cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise refused("is not a benchmark's result: it is not JSON") from error
    if not isinstance(data, dict) or not str(data.get("format", "")).startswith("m1d bench "):
        raise refused("is not a benchmark's result")
    if data["format"] != FORMAT:
        raise refused(f'is the result of another version ("{data["format"]}", and this one reads "{FORMAT}")')
    rows = data.get("findings")
    if not isinstance(rows, list) or not all(map(_is_finding, rows)):
        raise refused("is damaged: its findings are not what m1ctl bench writes")
    return Result({name: data.get(name, "") for name in ("date", "machine", "versions")}, {r["key"]: r for r in rows})


def _is_finding(row: object) -> bool:
    if not isinstance(row, dict):
        return False
    words = all(isinstance(row.get(name), str) for name in ("key", "title", "unit"))
    return words and all(row.get(name) is None or _is_number(row[name]) for name in _FIELDS)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def compare(a: Result, b: Result) -> list[Compared]:
    """Every finding of both, in the order of the first; then what only the second has."""
    return [_compared(key, a.findings.get(key), b.findings.get(key)) for key in {**a.findings, **b.findings}]


def _compared(key: str, a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> Compared:
    known = a or b or {}
    same_unit = a is not None and b is not None and a["unit"] == b["unit"]
    values = [row.get("value") if row else None for row in (a, b)]
    ratio = values[1] / values[0] if same_unit and values[0] and values[1] is not None else None
    apart = None
    if same_unit and a and b and all(row.get(edge) is not None for row in (a, b) for edge in ("low", "high")):
        apart = bool(a["high"] < b["low"] or b["high"] < a["low"])
    return Compared(key, known["title"], known["unit"], values[0], values[1], ratio, apart)


def comparison_page(a: Result, b: Result, rows: Sequence[Compared]) -> str:
    """Both values, the second over the first, and whether that is more than chance."""
    apart = {True: "yes", False: "no", None: ABSENT}
    lines = [(row.title, _shown(row.a), _shown(row.b), row.unit, _shown(row.ratio), apart[row.apart]) for row in rows]
    header = ("MEASURED", "A", "B", "UNIT", "B / A", "APART")
    return "\n".join([*_abouts(a, b), "", table(header, lines, right=(1, 2, 4))])


def comparison_document(a: Result, b: Result, rows: Sequence[Compared]) -> dict[str, Any]:
    """The same as plain data."""
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
