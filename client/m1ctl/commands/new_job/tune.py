"""`m1ctl tune`: find the fastest profile of a recipe on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from m1ctl.commands.options import Output
from m1ctl.commands.parsing import parse_pairs, parse_profile
from m1ctl.output import Format, put, put_json, tell
from m1ctl.session import check_not_empty, session_of

if TYPE_CHECKING:
    from m1.v1 import job_pb2


def tune(
    context: typer.Context,
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="A recipe's name (see m1ctl recipes), or a file of yours.", show_default=False
        ),
    ],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the recipe. Repeatable.")
    ] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Fix a field of the profile. Repeatable."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Job name (default: generated from the recipe).", show_default=False)
    ] = None,
    output: Output = Format.text,
) -> None:
    """Find the fastest profile for a recipe on this machine.

    Takes a few minutes: device, dtype, memory format, threads and more are compared on random data. The result is
    printed and saved; m1ctl submit uses it from then on.
    """
    from m1.errors import ExitCode
    from m1.v1 import job_pb2

    from m1ctl.sdk.requests import recipe_named
    from m1ctl.views.follow import follow_to_the_end
    from m1ctl.views.measurement import MeasuringView
    from m1ctl.views.pages import findings_page

    check_not_empty("--name", name, "omit it to get a generated name")
    with session_of(context).connect() as client:
        job = client.submit(
            recipe_named(recipe),
            purpose=job_pb2.PURPOSE_TUNE,
            settings=parse_pairs("--set", settings or ()),
            profile=parse_profile(parse_pairs("--profile", profile or ())),
            name=name or "",
        )
        code = follow_to_the_end(client, job, Format.text, MeasuringView())
        if code is ExitCode.INTERRUPTED:
            raise typer.Exit(code)
        ended = client.get(job.id)
        if output is Format.json:
            put_json(job_pb2.GetJobResponse(job=ended))
        elif ended.findings:
            put(findings_page(ended.findings))
        if code is ExitCode.OK:
            tell(f"saved; m1ctl submit {recipe} will now use {profile_words(ended)}")
    raise typer.Exit(code)


def profile_words(job: job_pb2.Job) -> str:
    """Return how the chosen profile differs from the default: "dtype bfloat16, prefetch 1"."""
    from m1ctl.views.formatting import profile_value

    chosen = (finding.key.partition("/") for finding in job.findings if finding.chosen)
    other = [
        f"{field} {value}" for field, _, value in chosen if profile_value(getattr(job.spec.profile, field)) != value
    ]
    return ", ".join(other) or "the machine's default"
