"""The progress of a job that measures, on stderr: one line that changes on a terminal, a line a part elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING, Self

from m1.units import format_duration
from m1.v1 import event_pb2, job_pb2

from m1ctl.output import one_line, tell
from m1ctl.sdk.states import job_title, state_word
from m1ctl.views.suspension import Suspension
from m1ctl.views.watched import Line, Watched

if TYPE_CHECKING:
    from rich.live import Live

_STATS_INTERVAL_S = 1.0


class MeasuringView:
    """A view for m1ctl.views.follow; stdout stays free for the result."""

    stats_interval_s = _STATS_INTERVAL_S
    draws_history = False

    def __init__(self) -> None:
        self._live: Live | None = None
        self._ending = ExitStack()
        self._suspension: Suspension | None = None
        self._told = ""
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
            self._ending.callback(live.stop)
            live.start()
            self._suspension = self._ending.enter_context(Suspension(live.stop, lambda: live.start(refresh=True)))
            self._live = live
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def begin(self, watched: Watched) -> None:
        """Say which job it is."""
        tell(f"{job_title(watched.job)} {state_word(watched.job.state)}; Ctrl-C detaches, the job keeps running")

    def show(self, watched: Watched, response: event_pb2.WatchResponse, lines: Iterable[Line]) -> None:
        """Show which part it is at; what else happened has a line of its own."""
        del lines
        with self._suspension.drawing() if self._suspension else nullcontext():
            self._show(watched, response)

    def _show(self, watched: Watched, response: event_pb2.WatchResponse) -> None:
        for event in response.events:
            if event.WhichOneof("payload") == "notice_raised":
                tell(event.notice_raised.message)
        doing = _doing(watched.job)
        if self._live:
            from rich.text import Text

            passed = format_duration(time.monotonic() - self._began)
            self._live.update(Text(one_line(f"{job_title(watched.job)}  {doing}  {passed}")), refresh=True)
        elif doing != self._told:
            tell(doing)
        self._told = doing


def _doing(job: job_pb2.Job) -> str:
    """Say "part 3 of 10: dtype bfloat16", or the job's state where it does not run."""
    progress = job.progress
    if job.state != job_pb2.JOB_STATE_RUNNING or not progress.phase:
        return state_word(job.state)
    return f"part {min(progress.step + 1, progress.total_steps)} of {progress.total_steps}: {progress.phase}"
