"""`m1ctl submit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from m1.errors import M1Error, Reason
from m1.profile import DECLARED

from m1ctl.commands.new_job.told import tell_job
from m1ctl.commands.options import Output
from m1ctl.commands.parsing import checkpoint_source, data_source, parse_pairs, parse_profile
from m1ctl.output import Format, tell
from m1ctl.session import check_not_empty, session_of

if TYPE_CHECKING:
    from m1.v1 import job_pb2


def submit(
    context: typer.Context,
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A recipe's name (see m1ctl recipes), or a file of yours: ./mine.py or ./mine.py:Class.",
            show_default=False,
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(help="Dataset name, or a path to one (default: the recipe's).", show_default=False),
    ] = None,
    epochs: Annotated[str | None, typer.Option(metavar="N", help="Short for --set epochs=N.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a setting of the recipe (see m1ctl recipes show). Repeatable."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Job name (default: generated from the recipe).", show_default=False)
    ] = None,
    priority: Annotated[int, typer.Option(help="Higher runs first; from -1000 to 1000.")] = 0,
    profile: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help=f"Change how this machine runs it: {', '.join(DECLARED)}. Repeatable.",
        ),
    ] = None,
    retries: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Give up after N consecutive failures without progress (default: 2).",
            show_default=False,
        ),
    ] = None,
    from_checkpoint: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="CHECKPOINT",
            help="Start from a checkpoint: an id, or a downloaded directory. Options you omit are taken from it.",
            show_default=False,
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Then follow it, as m1ctl watch does.")] = False,
    request_id: Annotated[
        str | None,
        typer.Option(help="Idempotency key: submitting it twice creates one job.", show_default=False),
    ] = None,
    output: Output = Format.text,
) -> None:
    """Queue a training job and print its id and name.

    The job is checked first, and data that is not in the cache yet is read before it is queued.
    """
    from m1ctl.sdk.requests import absolute_paths, recipe_named
    from m1ctl.views.dataset import PrepareView

    check_not_empty("--name", name, "omit it to get a generated name")
    check_not_empty("--from", from_checkpoint, "name a checkpoint, or omit it to start from scratch")
    check_not_empty("--request-id", request_id, "omit it to get a generated one")
    given = parse_pairs("--set", settings or ())
    if epochs is not None:
        if given.get("epochs", epochs) != epochs:
            raise M1Error(
                Reason.INVALID_ARGUMENT,
                f"--epochs {epochs} contradicts --set epochs={given['epochs']}",
                "give only one of them",
                field="settings.epochs",
                value=epochs,
            )
        given["epochs"] = epochs
    wanted = recipe_named(recipe)
    wanted_profile = parse_profile(parse_pairs("--profile", profile or ()))
    with session_of(context).connect() as client:
        source = data_source(client, data) if data is not None else ""
        given = absolute_paths(given, lambda: client.recipe(wanted).settings)
        with PrepareView(source or recipe) as view:
            job = client.submit(
                wanted,
                data=source,
                settings=given,
                name=name or "",
                priority=priority,
                profile=wanted_profile,
                retries=retries,
                from_checkpoint=checkpoint_source(from_checkpoint or ""),
                request_id=request_id or "",
                on_progress=view.show,
            )
        tell_profile(job.spec)
        tell_job(client, job, output, watch=watch)


def tell_profile(spec: job_pb2.JobSpec) -> None:
    """Report a tuned profile, and one that should be tuned again."""
    from m1.v1 import job_pb2

    profile = spec.profile
    if profile.source == job_pb2.PROFILE_SOURCE_TUNED or profile.stale:
        tell(f"profile: {profile.origin}")
    if profile.stale:
        tell(f"refresh the profile with m1ctl tune {spec.recipe}: {'; '.join(profile.stale)}")
