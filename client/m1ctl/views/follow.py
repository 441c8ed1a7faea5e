"""Following a job to its end: from the events to a view, and from the job's end to an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Protocol, Self

from m1.errors import ExitCode, M1Error, Reason
from m1.v1 import event_pb2, job_pb2

from m1ctl.output import Format, check_reader, one_line, put, put_json_line, tell, tell_error
from m1ctl.sdk.client import Client
from m1ctl.sdk.states import FAILED, SUCCEEDED, job_title, measures
from m1ctl.views.metrics import LOSS_OF_A_STEP
from m1ctl.views.watched import Line, Watched

_STATS_LINE_INTERVAL_S = 10.0
_STATS_INTERVAL_S = 1.0
_SOON_S = 0.1
_HISTORY_POINTS = 200
_WAITING = {
    job_pb2.JOB_STATE_PAUSED: "paused; resume it with m1ctl resume {id} (still watching; Ctrl-C detaches)",
    job_pb2.JOB_STATE_HELD: "held; resume it with m1ctl resume {id} (still watching; Ctrl-C detaches)",
    job_pb2.JOB_STATE_QUEUED: "waiting for its turn (still watching; Ctrl-C detaches)",
}


class View(Protocol):
    """Shows what a watcher learns."""

    stats_interval_s: float
    draws_history: bool
    """True if it shows what was measured before the watch began."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def begin(self, watched: Watched, /) -> None:
        """Show how the job stands."""

    def show(self, watched: Watched, response: event_pb2.WatchResponse, lines: Iterable[Line], /) -> None:
        """Show what a response brought; `watched` has taken it in, and said `lines` about it."""


class JsonLines:
    """One WatchResponse a line, with the job in the first one; none that says nothing."""

    stats_interval_s = _STATS_INTERVAL_S
    draws_history = False

    def __init__(self, *, stats: bool = False) -> None:
        self._stats = stats

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin(self, _watched: Watched) -> None:
        """Nothing: what a program reads are responses."""

    def show(self, _watched: Watched, response: event_pb2.WatchResponse, _lines: Iterable[Line]) -> None:
        """Print the response as it came, if it brought more than a cursor and stats that nobody wants."""
        if not self._stats:
            response.ClearField("stats")
        if response.events or any(map(response.HasField, ("job", "stats", "lost"))):
            put_json_line(response)
        else:
            check_reader()  # of a quiet job nothing is written that could fail


class PlainLines:
    """A line an event, for pipes and files."""

    stats_interval_s = _STATS_LINE_INTERVAL_S
    draws_history = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin(self, watched: Watched) -> None:
        """Print how the job stands."""
        put(one_line(watched.first_line()))

    def show(self, watched: Watched, response: event_pb2.WatchResponse, lines: Iterable[Line]) -> None:
        """Print the lines."""
        for line in lines:
            put(one_line(line.text))
        if response.HasField("stats"):
            put(one_line(watched.stats_line()))


def choose_view(output: Format, job: job_pb2.Job, *, stats: bool = False) -> View:
    """JSON (with system stats, if wanted), the live monitor or the progress of a measurement, or plain lines."""
    if output is Format.json:
        return JsonLines(stats=stats)
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        if measures(job):
            from m1ctl.views.measurement import MeasuringView

            return MeasuringView()
        from m1ctl.views.monitor import Monitor

        return Monitor()
    return PlainLines()


def follow_to_the_end(client: Client, job: job_pb2.Job, output: Format, view: View | None = None) -> ExitCode:
    """Show a job until it ends, across pauses and daemons; Ctrl-C detaches and cancels nothing.

    Args:
        client: Where it is followed.
        job: Where that message stands, the watch begins.
        output: Which view, if none is given.
        view: What to show it with.

    Returns:
        OK when it succeeded, JOB_FAILED, ERROR when it was cancelled, INTERRUPTED.

    Raises:
        M1Error: UNREACHABLE, when the daemon goes and does not come back.
    """
    watched = Watched(job)
    try:
        view = view or choose_view(output, job)
        if view.draws_history:
            watched.remember(_means(client, job, LOSS_OF_A_STEP), _means(client, job, watched.metrics.validated))
        with view:
            view.begin(watched)
            if not watched.is_over:
                _follow(client, watched, view)
            elif output is Format.json:
                put_json_line(last_state_change(client, watched.job))
    except KeyboardInterrupt:
        tell(f"detached; {job.id} keeps running (m1ctl watch {job.id} to reattach)")
        return ExitCode.INTERRUPTED
    return end_of(watched.job, output)


def last_state_change(client: Client, job: job_pb2.Job) -> event_pb2.WatchResponse:
    """Return a response with the last stored state change of a job that has ended, as a watch told it when it happened.

    Without events when the store keeps that change no longer: nothing is made up.
    """
    last = event_pb2.WatchResponse(job=job)
    # The stats bring a cursor even where no event passes the filter.
    kinds = (event_pb2.EVENT_KIND_STATE, event_pb2.EVENT_KIND_STATS)
    for response in client.watch(job.id, from_revision=1, kinds=kinds, stats_interval_s=_SOON_S):
        last.cursor, last.store_id = response.cursor, response.store_id
        for event in response.events:
            del last.events[:]
            last.events.append(event)
        if response.cursor >= job.revision:
            break
    return last


def _means(client: Client, job: job_pb2.Job, name: str) -> list[float]:
    if name not in job.latest_metrics:
        return []
    series = client.metric_series(name, job.id, max_points=_HISTORY_POINTS, last_step=job.progress.step)
    return [bucket.mean for bucket in series.buckets]


def _follow(client: Client, watched: Watched, view: View) -> None:
    told_state = watched.job.state
    for response in client.watch(
        watched.job.id,
        from_revision=watched.job.revision + 1,
        stats_interval_s=view.stats_interval_s,
        tell=tell,
    ):
        view.show(watched, response, watched.take(response))
        if watched.is_over:
            return
        if watched.job.state != told_state:
            told_state = watched.job.state
            if told_state in _WAITING:
                tell(_WAITING[told_state].format(id=watched.job.id))


def end_of(job: job_pb2.Job, output: Format = Format.text) -> ExitCode:
    """Return the exit code for a job's end; say on stderr why it did not succeed."""
    if job.state == SUCCEEDED:
        return ExitCode.OK
    if job.state == FAILED:
        message = job.error.message or job.reason or "no reason was given"
        error = M1Error(Reason.JOB_FAILED, f"job {job_title(job)} failed: {message}", job.error.hint)
        tell_error(error, output)
        return error.exit_code
    saves_nothing = measures(job) or (job.kind == job_pb2.JOB_KIND_PROGRAM and not job.can_yield)
    how = "starts it over" if saves_nothing else "continues from its newest checkpoint"
    error = M1Error(Reason.JOB_CANCELLED, f"job {job_title(job)} was cancelled", f"m1ctl retry {job.id} {how}")
    tell_error(error, output)
    return error.exit_code
