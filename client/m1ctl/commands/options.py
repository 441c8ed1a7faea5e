"""Options and arguments shared by commands."""

from __future__ import annotations

from typing import Annotated

import typer

from m1ctl.output import Format

Output = Annotated[Format, typer.Option("-o", "--output", help="text for people, json for programs.")]
OptionalJob = Annotated[
    str | None,
    typer.Argument(metavar="[JOB]", help="Job id or name (default: the running job).", show_default=False),
]
RequiredJob = Annotated[str, typer.Argument(metavar="JOB", help="Job id or name.", show_default=False)]
Out = Annotated[str | None, typer.Option(metavar="FILE", help="Write the result to FILE.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return immediately; don't wait for the job to react.")]
