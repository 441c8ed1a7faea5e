"""`m1ctl run`: any program as a job."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from m1.errors import M1Error, Reason

from m1ctl.commands.new_job.told import tell_job
from m1ctl.commands.options import Output
from m1ctl.commands.parsing import parse_pairs
from m1ctl.output import Format
from m1ctl.session import check_not_empty, session_of

# Of the shell in which it was typed, so that its python is the job's, and finds what it found there.
_OF_THE_SHELL = (
    *("PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "PYTHONPATH"),
    *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"),
)


def run(
    context: typer.Context,
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="PROGRAM...", help="What to run, with its arguments, as you would type it.", show_default=False
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="Job name (default: generated from the program).", show_default=False)
    ] = None,
    cwd: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Directory to start it in (default: the current one).", show_default=False),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env", metavar="NAME[=VALUE]", help="Set an environment variable, or pass this shell's on. Repeatable."
        ),
    ] = None,
    priority: Annotated[int, typer.Option(help="Higher runs first; from -1000 to 1000.")] = 0,
    retries: Annotated[
        int, typer.Option(min=0, metavar="N", help="Start it again after up to N consecutive failures.")
    ] = 0,
    watch: Annotated[bool, typer.Option("--watch", help="Then follow it, as m1ctl watch does.")] = False,
    request_id: Annotated[
        str | None,
        typer.Option(help="Idempotency key: running it twice creates one job.", show_default=False),
    ] = None,
    output: Output = Format.text,
) -> None:
    """Queue a program as it is, and print the job's id and name.

    It runs when its turn comes, in a session of its own: what it prints is the job's log, and its exit status decides
    whether the job succeeded. It sees PATH and the virtual environment of this shell, what the daemon passes on (see
    m1ctl daemon status), and what --env says. It can be held and cancelled; with m1job (see docs/programs.md) it can
    also be paused, and reports metrics and checkpoints.
    """
    check_not_empty("--name", name, "omit it to get a generated name")
    check_not_empty("--cwd", cwd, "name a directory, or omit it for the current one")
    check_not_empty("--request-id", request_id, "omit it to get a generated one")
    environment = {key: os.environ[key] for key in _OF_THE_SHELL if key in os.environ}
    with session_of(context).connect() as client:
        job = client.run(
            command,
            directory=os.path.abspath(os.path.expanduser(cwd or ".")),
            environment={**environment, **_variables(env or [])},
            name=name or "",
            priority=priority,
            retries=retries,
            request_id=request_id or "",
        )
        tell_job(client, job, output, watch=watch)


def _variables(given: list[str]) -> dict[str, str]:
    """Return NAME=VALUE texts as a dictionary; a NAME alone has this shell's value.

    Raises:
        M1Error: INVALID_ARGUMENT.
    """
    alone = [text for text in given if "=" not in text]
    for name in alone:
        if name not in os.environ:
            message = f"--env {name} has no value, and this shell has no such variable"
            raise M1Error(Reason.INVALID_ARGUMENT, message, f"write --env {name}=VALUE", field="--env", value=name)
    named = parse_pairs("--env", [text for text in given if "=" in text])
    return {name: os.environ[name] for name in alone} | named
