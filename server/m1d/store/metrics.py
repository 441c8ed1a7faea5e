"""Series of numbers over steps: every point, and a summary of every 64 steps for quick looks at long series.

A bucket is the steps from 64 k to 64 k + 63. Each bucket of a series has its summary but for the one that is being
written to, the open one; it gets its own when the next bucket is begun, in the same transaction. A training that goes
on from an earlier step writes the same steps again, and opens their buckets again. NaN is stored as NULL, and takes no
part in a minimum, a maximum or a mean.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BUCKET_STEPS = 64


@dataclass(frozen=True)
class Bucket:
    """Some points of a series, side by side."""

    first_step: int
    last_step: int
    count: int
    min: float
    max: float
    mean: float
    last: float


def put_points(db: sqlite3.Connection, job: int, step: int, values: Mapping[str, float]) -> None:
    """Store the values of a step, in the place of what an earlier attempt measured there."""
    bucket = step // BUCKET_STEPS
    for name, value in values.items():
        found = db.execute("SELECT id, open_bucket FROM series WHERE job = ? AND name = ?", (job, name)).fetchone()
        if found is None:
            new = db.execute("INSERT INTO series (job, name, open_bucket) VALUES (?, ?, ?)", (job, name, bucket))
            assert new.lastrowid is not None
            series, open_bucket = new.lastrowid, bucket
        else:
            series, open_bucket = found
        if open_bucket != bucket:
            if open_bucket is not None:
                _summarise(db, series, open_bucket)
            db.execute("DELETE FROM summaries WHERE series = ? AND bucket = ?", (series, bucket))
            db.execute("UPDATE series SET open_bucket = ? WHERE id = ?", (bucket, series))
        stored = None if math.isnan(value) else value
        db.execute("INSERT OR REPLACE INTO points VALUES (?, ?, ?)", (series, step, stored))


def close_bucket(db: sqlite3.Connection, series: int) -> None:
    """Give the open bucket its summary: nothing more will be written."""
    (open_bucket,) = db.execute("SELECT open_bucket FROM series WHERE id = ?", (series,)).fetchone()
    if open_bucket is not None:
        _summarise(db, series, open_bucket)
        db.execute("UPDATE series SET open_bucket = NULL WHERE id = ?", (series,))


def _summarise(db: sqlite3.Connection, series: int, bucket: int) -> None:
    db.execute(
        # Beside one max() or min() a bare column takes its row's value, so `last` needs a query without the other.
        "INSERT OR REPLACE INTO summaries SELECT series, ?, min(step), max(step), count(*), count(value), min(value),"
        " max(value), sum(value), (SELECT value FROM points WHERE series = ? AND step <= ? ORDER BY step DESC LIMIT 1)"
        " FROM points WHERE series = ? AND step BETWEEN ? AND ? GROUP BY series",
        (bucket, series, _span(bucket)[1], series, *_span(bucket)),
    )


def _span(bucket: int) -> tuple[int, int]:
    return bucket * BUCKET_STEPS, bucket * BUCKET_STEPS + BUCKET_STEPS - 1


def read_series(
    db: sqlite3.Connection, job: int, name: str, first_step: int, last_step: int, max_points: int
) -> list[Bucket] | None:
    """A series in at most `max_points` buckets of equal width in steps; None if there is no such series.

    Where the range begins or ends within a summarised bucket and the width asks for summaries, that bucket counts
    whole.
    """
    found = db.execute("SELECT id, open_bucket FROM series WHERE job = ? AND name = ?", (job, name)).fetchone()
    if found is None:
        return None
    series, open_bucket = found
    low, high = _bounds(db, series, first_step, last_step)
    if low is None or high is None:
        return []
    width = math.ceil((high - low + 1) / max_points)
    if (width < BUCKET_STEPS and not _thinned(db, series)) or not _summarised(db, series):
        return _from_points(db, series, low, high, width, max_points)
    # Whole buckets, and one more than fits may come of aligning the first one.
    per_bucket = math.ceil((high // BUCKET_STEPS - low // BUCKET_STEPS + 1) / max_points)
    open_span = _span(open_bucket) if open_bucket is not None else (-1, -1)
    rows = db.execute(
        "WITH part AS ("
        " SELECT bucket, first_step, last_step, points, numbers, low, high, total, last FROM summaries"
        "  WHERE series = :series AND bucket BETWEEN :first AND :last AND bucket IS NOT :open"
        " UNION ALL"
        " SELECT step / :steps, step, step, 1, value IS NOT NULL, value, value, value, value FROM points"
        "  WHERE series = :series AND step BETWEEN :open_first AND :open_last AND step BETWEEN :low AND :high"
        ") SELECT min(first_step), sum(points), sum(numbers), min(low), max(high), sum(total), last, max(last_step)"
        " FROM part GROUP BY (bucket - :first) / :width ORDER BY 1",
        {
            "series": series,
            "steps": BUCKET_STEPS,
            "first": low // BUCKET_STEPS,
            "last": high // BUCKET_STEPS,
            "low": low,
            "high": high,
            "open": open_bucket,
            "open_first": open_span[0],
            "open_last": open_span[1],
            "width": per_bucket,
        },
    )
    return [_bucket(row) for row in rows]


def _bounds(db: sqlite3.Connection, series: int, first: int, last: int) -> tuple[int | None, int | None]:
    """The first and last step of the range that there is, among points and summaries."""
    ends: list[tuple[int | None, int | None]] = []
    for table, begin, end in (("points", "step", "step"), ("summaries", "first_step", "last_step")):
        low = db.execute(
            f"SELECT {begin} FROM {table} WHERE series = ? AND {begin} >= ? ORDER BY {begin} LIMIT 1",  # noqa: S608
            (series, first),
        ).fetchone()
        high = db.execute(
            f"SELECT {end} FROM {table} WHERE series = ? AND {end} <= ? ORDER BY {end} DESC LIMIT 1",  # noqa: S608
            (series, last),
        ).fetchone()
        ends.append((low and low[0], high and high[0]))
    lows = [low for low, _ in ends if low is not None and low <= last]
    highs = [high for _, high in ends if high is not None and high >= first]
    return (min(lows), max(highs)) if lows and highs and min(lows) <= max(highs) else (None, None)


def _summarised(db: sqlite3.Connection, series: int) -> bool:
    return db.execute("SELECT 1 FROM summaries WHERE series = ? LIMIT 1", (series,)).fetchone() is not None


def _thinned(db: sqlite3.Connection, series: int) -> bool:
    """Whether retention has removed points, which it does from the first one on."""
    return (
        db.execute(
            "SELECT 1 FROM (SELECT first_step FROM summaries WHERE series = ? ORDER BY bucket LIMIT 1) AS first"
            " WHERE NOT EXISTS (SELECT 1 FROM points WHERE series = ? AND step = first.first_step)",
            (series, series),
        ).fetchone()
        is not None
    )


def _from_points(db: sqlite3.Connection, series: int, low: int, high: int, width: int, max_points: int) -> list[Bucket]:
    span = (series, low, high)
    (count,) = db.execute("SELECT count(*) FROM points WHERE series = ? AND step BETWEEN ? AND ?", span).fetchone()
    rows = db.execute(
        "SELECT min(step), count(*), count(value), min(value), max(value), sum(value), value, max(step)"
        " FROM points WHERE series = ? AND step BETWEEN ? AND ? GROUP BY (step - ?) / ? ORDER BY 1",
        (*span, low, 1 if count <= max_points else width),
    )
    return [_bucket(row) for row in rows]


def _bucket(row: Any) -> Bucket:
    first, count, numbers, low, high, total, last, last_step = row
    mean = total / numbers if numbers else None
    return Bucket(first, last_step, count, *(math.nan if v is None else v for v in (low, high, mean, last)))
