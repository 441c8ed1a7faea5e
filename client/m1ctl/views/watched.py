"""What a watcher knows: events and stats taken in one by one, and a line of text for each that deserves one.

`Watched` is the model behind the plain lines and the live monitor. It is fed recorded or live responses alike, and
reads no clock: all times are those of the events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from m1.metrics import LOSS
from m1.units import format_bytes, format_duration
from m1.v1 import checkpoint_pb2, event_pb2, job_pb2, result_pb2, system_pb2

from m1ctl.sdk.states import FINAL, SUCCEEDED, job_title, state_word
from m1ctl.views.formatting import (
    UNAVAILABLE,
    clock_time,
    epoch_prefix,
    phase_words,
    seconds,
)
from m1ctl.views.metrics import LOSS_OF_A_STEP, Metrics, is_of_a_step, metrics_of
from m1ctl.views.throughput import Throughput

# Metrics of training steps come many a second; a person reads one.
_STEP_LINES_INTERVAL_S = 1.0
_HISTORY = 2000
_FROM = "from"  # a field that is a keyword
_SEVERITY = {event_pb2.SEVERITY_WARNING: "warning: ", event_pb2.SEVERITY_ERROR: "error: "}


@dataclass(frozen=True)
class Line:
    """One line of text about what happened."""

    text: str
    is_step: bool = False
    """It tells how the training stands, as the next one will: not worth keeping on a screen that shows it anyway."""


class Watched:
    """One job as it was when the watch began, and everything that was told since."""

    def __init__(self, job: job_pb2.Job, step_lines_interval_s: float = _STEP_LINES_INTERVAL_S) -> None:
        self.job = job_pb2.Job()
        self.job.CopyFrom(job)
        self.throughput = Throughput()
        self.stats: system_pb2.SystemStats | None = None
        self.checkpoint: checkpoint_pb2.Checkpoint | None = None
        self.lost_revisions = 0
        self.losses: deque[float] = deque(maxlen=_HISTORY)
        self.validated: deque[float] = deque(maxlen=_HISTORY)
        """The headline metric of each validation."""
        self.metrics = metrics_of(job)
        self._interval_s = step_lines_interval_s
        self._last_step_line_s: float | None = None
        self._last_phase = ""

    @property
    def is_over(self) -> bool:
        """Return True if the job has ended for good."""
        return self.job.state in FINAL

    def remember(self, losses: Iterable[float], validated: Iterable[float]) -> None:
        """Take in what was measured before the watch began: the losses of steps, the headline, the oldest first."""
        self.losses.extend(losses)
        self.validated.extend(validated)

    def first_line(self) -> str:
        """Return how the job stands when the watch begins."""
        words = [job_title(self.job), state_word(self.job.state)]
        if self.job.progress.total_steps:
            words.append(f"step {self.job.progress.step}/{self.job.progress.total_steps}")
        return "  ".join(words) + (f"  ({self.job.reason})" if self.job.reason else "")

    def take(self, response: event_pb2.WatchResponse) -> list[Line]:
        """Take in one response; the lines that it deserves."""
        lines = []
        if response.HasField("lost"):
            lost = response.lost
            count = lost.last_revision - lost.first_revision + 1
            self.lost_revisions += count
            revisions = f"{lost.first_revision}-{lost.last_revision}"
            lines.append(Line(f"this reader was too slow: metrics of revisions {revisions} were dropped"))
        for event in response.events:
            text = self._take_event(event)
            if text:
                lines.append(Line(f"{clock_time(event.time)}  {text}", is_step=_is_step(event)))
        if response.HasField("stats"):
            self.stats = response.stats
        return lines

    def stats_line(self) -> str:
        """Return the last system stats on one line."""
        return f"{clock_time(self.stats.time)}  system: {stats_words(self.stats)}" if self.stats else ""

    def _take_event(self, event: event_pb2.Event) -> str:
        match event.WhichOneof("payload"):
            case "state_changed":
                return self._take_state(event.state_changed)
            case "progress_changed":
                return self._take_progress(event.progress_changed.progress)
            case "metrics_recorded":
                return self._take_metrics(event)
            case "checkpoint_created":
                self.checkpoint = event.checkpoint_created.checkpoint
                return checkpoint_words(self.checkpoint)
            case "checkpoint_deleted":
                return ""  # retention, a line for each new one: noise
            case "result_stored":
                return result_words(event.result_stored.result)
            case "notice_raised":
                return _SEVERITY.get(event.notice_raised.severity, "") + event.notice_raised.message
            case "job_deleted":
                return f"{job_title(self.job)} was deleted"
            case _:
                return ""  # of a newer daemon

    def _take_state(self, change: event_pb2.StateChanged) -> str:
        self.job.CopyFrom(change.job)
        self.metrics = metrics_of(change.job)
        self.throughput.reset()
        self._last_step_line_s = None
        before = getattr(change, _FROM)
        came_from = f"{state_word(before)} → " if before else ""
        line = f"{job_title(self.job)}  {came_from}{state_word(change.to)}"
        if change.to == SUCCEEDED:
            line += f"  {_summary(self.job, self.metrics)}"
        return line + (f"  ({change.reason})" if change.reason else "")

    def _take_progress(self, progress: job_pb2.Progress) -> str:
        self.job.progress.CopyFrom(progress)
        if progress.phase == self._last_phase:
            return ""
        self._last_phase = progress.phase
        words = phase_words(progress)
        return f"{words} ..." if words else ""

    def _take_metrics(self, event: event_pb2.Event) -> str:
        recorded = event.metrics_recorded
        values = dict(recorded.values)
        for key, value in values.items():
            self.job.latest_metrics[key] = value
        if LOSS_OF_A_STEP in values:
            self.losses.append(values[LOSS_OF_A_STEP])
        if self.metrics.validated in values:
            self.validated.append(values[self.metrics.validated])
        progress = self.job.progress
        progress.step = max(progress.step, recorded.step)
        if not _is_step(event):
            evaluated = {key: value for key, value in values.items() if not key.startswith("train/")}
            group = min(evaluated, default="").split("/", 1)[0]
            return f"{group} after step {recorded.step}: {self.metrics.words(evaluated)}"
        now_s = seconds(event.time)
        self.throughput.see(now_s, recorded.step)
        is_soon = self._last_step_line_s is not None and 0 <= now_s - self._last_step_line_s < self._interval_s
        if is_soon and recorded.step != progress.total_steps:
            return ""
        self._last_step_line_s = now_s
        eta_s = self.throughput.eta_s(progress.total_steps, now_s)
        total = f"/{progress.total_steps}" if progress.total_steps else ""
        return f"{epoch_prefix(progress)}step {recorded.step}{total}  {self.metrics.step_words(values)}" + (
            f"  ETA {format_duration(eta_s)}" if eta_s is not None else ""
        )


def _is_step(event: event_pb2.Event) -> bool:
    recorded = event.metrics_recorded
    return event.WhichOneof("payload") == "metrics_recorded" and is_of_a_step(recorded.of_step, recorded.values)


def result_words(result: result_pb2.Result) -> str:
    """Return a result in one line: "result confusion  What was called what, of the test  step 352"."""
    return f"result {result.name}  {result.title}  step {result.step}"


def checkpoint_words(checkpoint: checkpoint_pb2.Checkpoint) -> str:
    """Return a checkpoint in one line: "checkpoint j1@352  step 352  18.8 MB  best"."""
    return f"checkpoint {checkpoint.id}  step {checkpoint.step}  {format_bytes(checkpoint.size_bytes)}" + (
        "  best" if checkpoint.best else ""
    )


def stats_words(stats: system_pb2.SystemStats) -> str:
    """Core, memory, training process, heat and power in one line; what the machine can't tell is called unavailable."""
    return "  ".join([cpu_words(stats), memory_words(stats), training_words(stats), power_words(stats)])


def cpu_words(stats: system_pb2.SystemStats) -> str:
    """Return how busy the cores are."""
    busy = f"{100 * stats.cpu_fraction:.0f} %" if stats.HasField("cpu_fraction") else UNAVAILABLE
    cores = len(stats.core_fractions)
    return f"cpu {busy}" + (f" of {cores} cores" if cores else "")


def memory_words(stats: system_pb2.SystemStats) -> str:
    """Return how full the memory is."""
    if not (stats.memory_total_bytes and stats.HasField("memory_available_bytes")):
        return f"memory {UNAVAILABLE}"
    used = stats.memory_total_bytes - stats.memory_available_bytes
    swap = f", swap {format_bytes(stats.swap_used_bytes)}" if stats.swap_used_bytes else ""
    return f"memory {format_bytes(used)} of {format_bytes(stats.memory_total_bytes)}{swap}"


def training_words(stats: system_pb2.SystemStats) -> str:
    """Return what the training process takes."""
    if not stats.HasField("training"):
        return "training: no process"
    training = stats.training
    cores = f"{training.cpu_cores:.1f} cores" if training.HasField("cpu_cores") else f"cpu {UNAVAILABLE}"
    return f"training {cores}, {format_bytes(training.memory_bytes)}, {training.threads} threads"


def power_words(stats: system_pb2.SystemStats) -> str:
    """Heat and battery."""
    thermal = stats.thermal_pressure if stats.HasField("thermal_pressure") else UNAVAILABLE
    battery = UNAVAILABLE
    if stats.HasField("on_battery"):
        battery = "on battery" if stats.on_battery else "on mains"
        if stats.HasField("battery_fraction"):
            battery += f" {100 * stats.battery_fraction:.0f} %"
    return f"thermal {thermal}  battery {battery}"


def _summary(job: job_pb2.Job, metrics: Metrics) -> str:
    words = []
    if job.HasField("end_time"):
        words.append(f"after {format_duration(max(0.0, seconds(job.end_time) - seconds(job.create_time)))}")
    tested = [f"test/{key}" for key in dict.fromkeys((metrics.headline.key, LOSS.key))]
    words += [f"{key} {metrics.value(key, job.latest_metrics[key])}" for key in tested if key in job.latest_metrics]
    return "  ".join(words)
