"""The options and arguments that commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from m1ctl.output import Format

Output = Annotated[Format, typer.Option("-o", "--output", help="text, or json: the response message.")]
OptionalJob = Annotated[
    str | None,
    typer.Argument(metavar="[JOB]", help="An id or a name; left out: the job that runs.", show_default=False),
]
RequiredJob = Annotated[str, typer.Argument(metavar="JOB", help="An id or a name.", show_default=False)]
Out = Annotated[str | None, typer.Option(metavar="FILE", help="Write the result to FILE.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return when the wish is stored.")]
