"""`m1ctl watch`: follow a job to its end."""

from __future__ import annotations

import typer

from m1ctl.commands.options import OptionalJob, Output
from m1ctl.output import Format
from m1ctl.session import reference, session_of


def watch(context: typer.Context, job: OptionalJob = None, output: Output = Format.text) -> None:
    """Follow a job to its end; Ctrl-C detaches.

    Shows states, metrics, checkpoints and system stats. Ends with 0 when the job succeeded, 8 when it failed, 1 when it
    was cancelled. Of a job that has ended already -o json prints one object: its last state change, or no events where
    the store keeps that no longer.
    """
    from m1ctl.views.follow import follow_to_the_end

    with session_of(context).connect() as client:
        code = follow_to_the_end(client, client.get(reference(job)), output)
    raise typer.Exit(code)
