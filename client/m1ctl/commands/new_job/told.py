"""What a verb that has made a job says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from m1ctl.output import Format, put, put_json, put_json_line

if TYPE_CHECKING:
    from m1.v1 import job_pb2

    from m1ctl.sdk.client import Client


def tell_job(client: Client, job: job_pb2.Job, output: Format, *, watch: bool) -> None:
    """Print the job's id and name; with `watch` follow it and end with the exit code of its end.

    Raises:
        typer.Exit: it was followed.
    """
    from m1.v1 import job_pb2

    if output is Format.text:
        put(f"{job.id} {job.name}")
    elif watch:
        put_json_line(job_pb2.SubmitJobResponse(job=job))
    else:
        put_json(job_pb2.SubmitJobResponse(job=job))
    if watch:
        from m1ctl.views.follow import follow_to_the_end

        raise typer.Exit(follow_to_the_end(client, job, output))
