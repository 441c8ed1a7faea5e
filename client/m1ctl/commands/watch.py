"""`m1ctl watch`."""

from __future__ import annotations

from typing import Annotated

import typer

from m1ctl.commands.options import OptionalJob, Output
from m1ctl.output import Format
from m1ctl.session import reference, session_of


def watch(
    context: typer.Context,
    job: OptionalJob = None,
    stats: Annotated[bool, typer.Option("--stats", help="With -o json: system stats, too.")] = False,
    output: Output = Format.text,
) -> None:
    """Follow a job until it ends; Ctrl-C detaches.

    Shows state changes, metrics, checkpoints, results and system stats. Exits with 0 if the job succeeded, 8 if it
    failed, 1 if it was cancelled. With -o json, prints an object a line; the first one has the job as it stands. For a
    job that has already ended that is all, with its last state change if it is still stored.
    """
    from m1ctl.views.follow import choose_view, follow_to_the_end

    with session_of(context).connect() as client:
        watched = client.get(reference(job))
        code = follow_to_the_end(client, watched, output, choose_view(output, watched, stats=stats))
    raise typer.Exit(code)
