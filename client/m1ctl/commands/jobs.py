"""Commands for submitted jobs."""

from __future__ import annotations

import codecs
import time
from typing import TYPE_CHECKING, Annotated

import typer
from m1.errors import M1Error, Reason
from m1.units import format_bytes

from m1ctl.commands.options import NoWait, OptionalJob, Output, RequiredJob
from m1ctl.output import ByteStream, Format, put, put_json, tell
from m1ctl.session import reference, session_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from m1.v1 import job_pb2

    from m1ctl.sdk.client import Client


def list_(
    context: typer.Context,
    state: Annotated[
        list[str] | None, typer.Option(help="Only jobs in this state. Repeatable.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All jobs, not just the newest 100.")] = False,
    output: Output = Format.text,
) -> None:
    """List jobs, newest first."""
    from m1.v1 import job_pb2

    from m1ctl.sdk.states import state_from_word
    from m1ctl.views.pages import job_table

    states = [state_from_word(word) for word in state or ()]
    with session_of(context).connect() as client:
        answer = job_pb2.ListJobsResponse(jobs=client.list_jobs(states)) if every else client.newest_jobs(states)
    if output is Format.json:
        put_json(answer)
    elif answer.jobs:
        put(job_table(answer.jobs, time.time()))
        if answer.next_page_token:
            tell("there are older jobs: m1ctl list --all")
    else:
        tell("no such jobs" if states else "no jobs yet; try: m1ctl submit cifar --data digits")


def show(context: typer.Context, job: OptionalJob = None, output: Output = Format.text) -> None:
    """Show everything about a job."""
    from m1.v1 import job_pb2

    from m1ctl.views.pages import job_page

    with session_of(context).connect() as client:
        shown = client.get(reference(job))
    if output is Format.json:
        put_json(job_pb2.GetJobResponse(job=shown))
    else:
        put(job_page(shown, time.time()))


def logs(
    context: typer.Context,
    job: OptionalJob = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Keep printing until the job ends.")] = False,
    tail: Annotated[
        int | None, typer.Option("-n", "--tail", min=0, max=2**31, metavar="N", help="Only the last N lines.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help='Only what was printed since: "5m", "2h30m", "2026-03-01T12:00".'),
    ] = None,
    output: Output = Format.text,
) -> None:
    """Print the training process's output.

    Of it the newest 8 MiB at least are kept. With -o json, prints an object with the text and the offset to continue
    from; with -f, one for each piece.
    """
    begin = None
    if since is not None:
        from datetime import datetime

        from m1ctl.sdk.times import moment

        begin = moment(since, datetime.now().astimezone())
    with session_of(context).connect() as client:
        # Resolved once: an empty JOB would be another job after a reconnection.
        job_id = client.get(reference(job)).id
        stream = ByteStream()
        whole, offset, dropped_bytes = bytearray(), 0, 0
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")  # a character may be in two pieces
        for part in client.read_log(job_id, follow=follow, tail=tail, since=begin, tell=tell):
            if output is Format.text:
                if part.dropped_bytes:
                    tell(f"{format_bytes(part.dropped_bytes)} of older output are no longer kept")
                stream.put(part.chunk)
            elif follow and part.chunk:
                put(_log_json(decoder.decode(part.chunk), part.next_offset, part.dropped_bytes))
            else:
                whole += part.chunk
                offset, dropped_bytes = part.next_offset, dropped_bytes + part.dropped_bytes
    if output is Format.json and not follow:
        put(_log_json(whole.decode(errors="replace"), offset, dropped_bytes))


def _log_json(text: str, next_offset: int, dropped_bytes: int) -> str:
    import json

    return json.dumps({"text": text, "next_offset": next_offset, "dropped_bytes": dropped_bytes})


def metrics(
    context: typer.Context,
    job: OptionalJob = None,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help='Show the history of one metric, such as "train/loss".', show_default=False
        ),
    ] = None,
    points: Annotated[int, typer.Option(min=1, max=10000, metavar="N", help="With NAME: at most N lines.")] = 20,
    output: Output = Format.text,
) -> None:
    """Show the latest metrics, or the history of one.

    With NAME, the steps are grouped into at most --points rows, each with its minimum, mean, maximum and last value.
    "m1ctl metrics train/loss" is about the running job: no job's name contains a slash.
    """
    from m1.v1 import job_pb2

    from m1ctl.views.metrics import metrics_of
    from m1ctl.views.pages import metric_table, series_table

    if name is None and job and "/" in job:
        job, name = None, job

    with session_of(context).connect() as client:
        if name is None:
            shown = client.get(reference(job))
            if output is Format.json:
                put_json(job_pb2.GetJobResponse(job=shown))
            elif shown.latest_metrics:
                put(metric_table(shown))
            else:
                tell(f"job {shown.id} has no metrics yet")
            return
        measured = client.get(reference(job))
        series = client.metric_series(name, measured.id, max_points=points)
    if output is Format.json:
        put_json(series)
    else:
        put(series_table(series, metrics_of(measured)))


def pause(
    context: typer.Context,
    job: OptionalJob = None,
    hold: Annotated[
        bool, typer.Option("--hold", help="Freeze the job in place; it keeps its memory and its turn.")
    ] = False,
    no_wait: NoWait = False,
    output: Output = Format.text,
) -> None:
    """Pause a job: checkpoint it and free its memory.

    The next job may then run. Returns when the job has paused.
    """
    from m1.v1 import job_pb2

    from m1ctl.sdk.states import FINAL, job_title, state_word

    session = session_of(context)
    # A yield of somebody else ends a hold.
    stopped = {job_pb2.JOB_STATE_PAUSED} | ({job_pb2.JOB_STATE_HELD} if hold else set())
    with session.connect() as client:
        now = client.pause(reference(job), hold=hold)
        if not no_wait:
            now = _wait_for_wish(client, now, stopped, "held" if hold else "paused", session.timeout_s)
    if now.state in FINAL:
        raise M1Error(
            Reason.WRONG_STATE,
            f"job {job_title(now)} {state_word(now.state)} before it could be paused",
            f"see m1ctl show {now.id}",
        )
    _put_job(job_pb2.PauseJobResponse(job=now), output, "" if now.state in stopped else "will be paused")


def resume(context: typer.Context, job: OptionalJob = None, output: Output = Format.text) -> None:
    """Resume a paused or held job.

    A paused job goes to the front of the queue for its priority.
    """
    from m1.v1 import job_pb2

    with session_of(context).connect() as client:
        now = client.resume(reference(job))
    _put_job(job_pb2.ResumeJobResponse(job=now), output, "resuming" if now.state == job_pb2.JOB_STATE_HELD else "")


def cancel(
    context: typer.Context, job: OptionalJob = None, no_wait: NoWait = False, output: Output = Format.text
) -> None:
    """Cancel a job for good; its checkpoints are kept.

    Returns when the job has ended.
    """
    from m1.v1 import job_pb2

    from m1ctl.sdk.states import CANCELLED, FINAL, job_title, state_word

    session = session_of(context)
    with session.connect() as client:
        now = client.cancel(reference(job))
        if not no_wait:
            now = _wait_for_wish(client, now, FINAL, "cancelled", session.timeout_s)
            if now.state != CANCELLED:
                raise M1Error(
                    Reason.WRONG_STATE,
                    f"job {job_title(now)} {state_word(now.state)} before it could be cancelled",
                    f"see m1ctl show {now.id}",
                )
    _put_job(job_pb2.CancelJobResponse(job=now), output, "" if now.state == CANCELLED else "will be cancelled")


def retry(context: typer.Context, job: RequiredJob, output: Output = Format.text) -> None:
    """Queue a failed or cancelled job again.

    It continues from its newest checkpoint.
    """
    from m1.v1 import job_pb2

    with session_of(context).connect() as client:
        now = client.retry(reference(job))
    _put_job(job_pb2.RetryJobResponse(job=now), output)


def delete(
    context: typer.Context,
    what: Annotated[
        str, typer.Argument(metavar="JOB|CHECKPOINT", help='Job id or name, or a checkpoint\'s id ("j12@352").')
    ],
    output: Output = Format.text,
) -> None:
    """Delete a finished job, or a checkpoint.

    A job is deleted with its checkpoints, metrics, results and log.
    """
    from m1.v1 import checkpoint_pb2, job_pb2

    response: job_pb2.DeleteJobResponse | checkpoint_pb2.DeleteCheckpointResponse
    with session_of(context).connect() as client:
        if "@" in what:  # never in a job's name
            client.delete_checkpoint(what)
            response = checkpoint_pb2.DeleteCheckpointResponse()
        else:
            client.delete(reference(what))
            response = job_pb2.DeleteJobResponse()
    if output is Format.json:
        put_json(response)
    else:
        put(f"{what} deleted")


def _wait_for_wish(
    client: Client, job: job_pb2.Job, until: Collection[job_pb2.JobState], word: str, timeout_s: float | None
) -> job_pb2.Job:
    """Wait until the daemon has done what it was asked to; a timeout says that the request stands."""
    try:
        return client.wait(job, until=until, timeout_s=timeout_s, tell=tell)
    except M1Error as error:
        if error.reason is not Reason.TIMED_OUT:
            raise
        raise M1Error(
            Reason.TIMED_OUT,
            f'job "{job.id}" was not {word} after {timeout_s:g} s',
            f"the request stands; follow it with m1ctl watch {job.id}",
            field="job",
            value=job.id,
        ) from error


def _put_job(
    response: job_pb2.PauseJobResponse
    | job_pb2.ResumeJobResponse
    | job_pb2.CancelJobResponse
    | job_pb2.RetryJobResponse,
    output: Format,
    word: str = "",
) -> None:
    """Print a job after a verb: "j12 first paused"."""
    from m1ctl.sdk.states import state_word

    if output is Format.json:
        put_json(response)
    else:
        put(f"{response.job.id} {response.job.name} {word or state_word(response.job.state)}")
