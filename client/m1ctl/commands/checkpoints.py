"""Commands for checkpoints."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from m1ctl.commands.options import OptionalJob, Output
from m1ctl.output import Format, put, put_json
from m1ctl.session import reference, session_of


def checkpoint(context: typer.Context, job: OptionalJob = None, output: Output = Format.text) -> None:
    """Make a checkpoint now.

    Returns when it is safely on disk.
    """
    from m1.units import format_bytes
    from m1.v1 import checkpoint_pb2

    session = session_of(context)
    with session.connect() as client:
        made = client.create_checkpoint(reference(job), timeout_s=session.timeout_s)
    if output is Format.json:
        put_json(checkpoint_pb2.CreateCheckpointResponse(checkpoint=made))
    else:
        put(f"{made.id}  step {made.step}  {format_bytes(made.size_bytes)}")


def checkpoints(context: typer.Context, job: OptionalJob = None, output: Output = Format.text) -> None:
    """List a job's checkpoints, newest first."""
    from m1.v1 import checkpoint_pb2

    from m1ctl.output import tell
    from m1ctl.views.metrics import metrics_of
    from m1ctl.views.pages import checkpoint_table

    with session_of(context).connect() as client:
        # Resolved once: between two pages an empty JOB could become another one.
        owner = client.get(reference(job))
        found = list(client.list_checkpoints(owner.id))
    if output is Format.json:
        put_json(checkpoint_pb2.ListCheckpointsResponse(checkpoints=found))
    elif found:
        put(checkpoint_table(found, metrics_of(owner), time.time()))
    else:
        tell(f"job {owner.id} has no checkpoints yet")


def download(
    context: typer.Context,
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help='Checkpoint id, such as "j12@352".', show_default=False)
    ],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory to create.", show_default=False)],
    output: Output = Format.text,
) -> None:
    """Copy a checkpoint to a new directory.

    The directory appears complete and verified, or not at all.
    """
    from m1.v1 import checkpoint_pb2

    with session_of(context).connect() as client:
        copied = client.download_checkpoint(checkpoint, directory)
    if output is Format.json:
        put_json(checkpoint_pb2.GetCheckpointResponse(checkpoint=copied))
    else:
        put(str(directory))
