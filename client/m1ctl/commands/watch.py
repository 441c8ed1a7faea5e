"""`m1ctl watch`."""

from __future__ import annotations

import typer

from m1ctl.commands.options import OptionalJob, Output
from m1ctl.output import Format
from m1ctl.session import reference, session_of


def watch(context: typer.Context, job: OptionalJob = None, output: Output = Format.text) -> None:
    """Follow a job until it ends; Ctrl-C detaches.

    Shows state changes, metrics, checkpoints, results and system stats. Exits with 0 if the job succeeded, 8 if it
    failed, 1 if it was cancelled. For a job that has already ended, -o json prints one object: its last state change,
    or no events if that is no longer stored.
    """
    from m1ctl.views.follow import follow_to_the_end

    with session_of(context).connect() as client:
        code = follow_to_the_end(client, client.get(reference(job)), output)
    raise typer.Exit(code)
