"""Numbers of a training as people read them: times, progress, sparklines. Pure functions."""

from __future__ import annotations

import datetime
import itertools
import math
from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp
from m1.units import format_duration
from m1.v1 import job_pb2

ABSENT = "-"
UNAVAILABLE = "unavailable"
_BARS = "▁▂▃▄▅▆▇█"


def seconds(time: Timestamp) -> float:
    """Return seconds since the epoch."""
    return time.seconds + time.nanos * 1e-9


def clock_time(time: Timestamp) -> str:
    """Return the local time of day: "14:03:27"."""
    return datetime.datetime.fromtimestamp(seconds(time)).astimezone().strftime("%H:%M:%S")


def date_time(time: Timestamp) -> str:
    """Return the local date and time: "2026-03-01 14:03:27"."""
    return datetime.datetime.fromtimestamp(seconds(time)).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def format_age(time: Timestamp, now: float) -> str:
    """Return how long ago, in the two largest units; a clock that was set back gives no negative ages."""
    return format_duration(max(0.0, now - seconds(time)))


def epoch_prefix(progress: job_pb2.Progress) -> str:
    """Return the epoch that it is in, counted from one: "epoch 2/15  "; the last one when all are done.

    Of a job that counts none, nothing.
    """
    total = progress.total_epochs
    return f"epoch {min(progress.epoch + 1, total)}/{total}  " if total else ""


def step_fraction(progress: job_pb2.Progress) -> float | None:
    """Return the part of all steps that is done; None before the plan is known."""
    return min(1.0, progress.step / progress.total_steps) if progress.total_steps else None


def progress_words(progress: job_pb2.Progress) -> str:
    """Return the short form: "epoch 2/15  13 %"; without epochs "13 %"."""
    fraction = step_fraction(progress)
    return f"{epoch_prefix(progress)}{100 * fraction:.0f} %" if fraction is not None else ABSENT


def phase_words(progress: job_pb2.Progress) -> str:
    """Return the phase: "read data 1200/5000", "validate"; nothing for plain training."""
    if not progress.phase or progress.phase == "train":
        return ""
    return progress.phase + (f" {progress.phase_done}/{progress.phase_total}" if progress.phase_total else "")


def profile_value(value: bool | int | str) -> str:
    """Return the value of a profile's field as a person would type it: "on", "4", "bfloat16"."""
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def sparkline(values: Sequence[float], width: int) -> str:
    """Draw values as bars between their minimum and maximum; more than `width` are averaged into groups."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite or width < 1:
        return ""
    count = min(width, len(finite))
    edges = [len(finite) * i // count for i in range(count + 1)]
    means = [sum(finite[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    if high == low:
        return _BARS[0] * count
    return "".join(_BARS[round((mean - low) / (high - low) * (len(_BARS) - 1))] for mean in means)
