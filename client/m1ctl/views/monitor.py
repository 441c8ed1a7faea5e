"""The live monitor: what happened scrolls above, how it stands is drawn below, once for each response.

It is drawn from `Watched` in the thread that reads the stream, so nothing is read while it changes. System stats come
every second, so the picture moves even while nothing is trained.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Self

from m1.units import format_duration
from m1.v1 import event_pb2, job_pb2
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from m1ctl.output import one_line
from m1ctl.sdk.states import ACTIVE, FAILED, SUCCEEDED, job_title, state_word
from m1ctl.views.formatting import epoch_prefix, phase_words, sparkline, step_fraction
from m1ctl.views.metrics import LOSS_OF_A_STEP
from m1ctl.views.suspension import Suspension
from m1ctl.views.watched import (
    Line,
    Watched,
    checkpoint_words,
    cpu_words,
    memory_words,
    power_words,
    training_words,
)

_DRAW_INTERVAL_S = 0.1
_NAME_WIDTHS = (12, 24)
"""The least and the greatest."""
_BAR_WIDTH = 40
_SPARK_WIDTH = 40
_STYLES = {
    job_pb2.JOB_STATE_RUNNING: "bold green",
    SUCCEEDED: "bold green",
    FAILED: "bold red",
    job_pb2.JOB_STATE_CANCELLED: "bold red",
}


class Monitor:
    """A view on a terminal."""

    stats_interval_s = 1.0
    draws_history = True

    def __init__(
        self,
        console: Console | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console or Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")
        self._clock = clock
        self._monotonic = monotonic
        self._drawn = float("-inf")
        self._ending = ExitStack()
        self._suspension = Suspension(self._live.stop, lambda: self._live.start(refresh=True))

    def __enter__(self) -> Self:
        self._ending.callback(self._live.stop)
        self._live.start()
        self._ending.enter_context(self._suspension)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def begin(self, watched: Watched) -> None:
        """Draw how the job stands."""
        self._draw(watched)

    def show(self, watched: Watched, _response: event_pb2.WatchResponse, lines: Iterable[Line]) -> None:
        """Print what deserves to stay, and draw the rest; at most ten times a second."""
        with self._suspension.drawing():
            for line in lines:
                if not line.is_step:
                    self._console.print(escape(one_line(line.text)))
        if watched.is_over or self._monotonic() >= self._drawn + _DRAW_INTERVAL_S:
            self._draw(watched)

    def _draw(self, watched: Watched) -> None:
        self._drawn = self._monotonic()
        with self._suspension.drawing():
            self._live.update(draw(watched, self._clock()), refresh=True)


def draw(watched: Watched, now: float) -> RenderableType:
    """Draw a job as it stands at a time."""
    job, metrics = watched.job, watched.metrics
    rows = Table.grid(padding=(0, 2), expand=True)
    least, greatest = _NAME_WIDTHS
    width = max(least, min(greatest, len(metrics.validated)))
    rows.add_column(style="dim", no_wrap=True, overflow="ellipsis", width=width)
    rows.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    title = Text.assemble(
        (one_line(job_title(job)), "bold"), "  ", (state_word(job.state), _STYLES.get(job.state, "bold yellow"))
    )
    if job.state in ACTIVE:
        title.append(one_line(f"  {phase_words(job.progress)}"))
    rows.add_row("job", title)
    rows.add_row("progress", _progress(watched, now))
    train = metrics.step_words(job.latest_metrics)
    if train:
        rows.add_row("train", Text(one_line(train)))
    for group in ("val", "test"):
        measured = {key: value for key, value in job.latest_metrics.items() if key.startswith(f"{group}/")}
        if measured:
            rows.add_row(group, Text(one_line(metrics.words(measured))))
    if len(watched.losses) > 1:
        rows.add_row(LOSS_OF_A_STEP, Text(sparkline(watched.losses, _SPARK_WIDTH)))
    if len(watched.validated) > 1:
        rows.add_row(Text(one_line(metrics.validated)), Text(sparkline(watched.validated, _SPARK_WIDTH)))
    if watched.checkpoint:
        rows.add_row("newest", Text(one_line(checkpoint_words(watched.checkpoint))))
    stats = watched.stats
    if stats:
        rows.add_row("system", Text(f"{cpu_words(stats)}  {memory_words(stats)}"))
        rows.add_row("process", Text(one_line(training_words(stats))))
        rows.add_row("power", Text(one_line(power_words(stats))))
    if watched.lost_revisions:
        rows.add_row("lost", Text(f"{watched.lost_revisions} metric events (this reader was too slow)"))
    return Group(Text(), rows)


def _progress(watched: Watched, now: float) -> RenderableType:
    progress = watched.job.progress
    fraction = step_fraction(progress)
    if fraction is None:
        counts = watched.job.kind != job_pb2.JOB_KIND_PROGRAM
        return Text("waiting for the first step" if counts else "the program does not say")
    pace = watched.throughput.steps_per_s
    eta_s = watched.throughput.eta_s(progress.total_steps, now)
    words = [
        f"{100 * fraction:3.0f} %",
        f"step {progress.step}/{progress.total_steps}",
    ]
    if progress.total_epochs:
        words.append(epoch_prefix(progress).rstrip())
    if pace:
        words.append(f"{pace:.1f} steps/s")
    if eta_s is not None and not watched.is_over:
        words.append(f"ETA {format_duration(eta_s)}")
    line = Table.grid(padding=(0, 2))
    # On a narrow terminal the bar gives way first, then the end of the words: a second line would move the rest.
    line.add_column(max_width=_BAR_WIDTH)
    line.add_column(no_wrap=True, overflow="ellipsis")
    line.add_row(ProgressBar(total=progress.total_steps, completed=progress.step), "  ".join(words))
    return line
