"""`m1ctl submit`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer
from m1.errors import M1Error, Reason, nearest
from m1.profile import DECLARED
from m1.settings import Setting, Value, convert, inside, takes

from m1ctl.commands.options import Output
from m1ctl.output import Format, put, put_json, put_json_line, tell
from m1ctl.session import check_not_empty, session_of

if TYPE_CHECKING:
    from m1.v1 import job_pb2

    from m1ctl.sdk.client import Client


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
    from m1.v1 import job_pb2

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
        if output is Format.text:
            put(f"{job.id} {job.name}")
        elif watch:
            put_json_line(job_pb2.SubmitJobResponse(job=job))
        else:
            put_json(job_pb2.SubmitJobResponse(job=job))
        if not watch:
            return
        from m1ctl.views.follow import follow_to_the_end

        code = follow_to_the_end(client, job, output)
    raise typer.Exit(code)


def tell_profile(spec: job_pb2.JobSpec) -> None:
    """Report a tuned profile, and one that should be tuned again."""
    from m1.v1 import job_pb2

    profile = spec.profile
    if profile.source == job_pb2.PROFILE_SOURCE_TUNED or profile.stale:
        tell(f"profile: {profile.origin}")
    if profile.stale:
        tell(f"refresh the profile with m1ctl tune {spec.recipe}")


def parse_pairs(option: str, given: list[str] | tuple[()]) -> dict[str, str]:
    """Return KEY=VALUE texts as a dictionary; the last value of a key counts.

    Raises:
        M1Error: INVALID_ARGUMENT.
    """
    parsed: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise M1Error(
                Reason.INVALID_ARGUMENT,
                f'{option} "{text}" is not KEY=VALUE',
                f"write {option} {key or 'KEY'}=VALUE",
                field=option,
                value=text,
            )
        parsed[key] = value
    return parsed


def parse_profile(given: dict[str, str]) -> job_pb2.Profile:
    """Return a profile with only the given fields.

    Raises:
        M1Error: INVALID_ARGUMENT, for an unknown field or an impossible value.
    """
    from m1.v1 import job_pb2

    profile = job_pb2.Profile()
    for key, value in given.items():
        if key not in DECLARED:
            raise M1Error(
                Reason.INVALID_ARGUMENT,
                f'there is no profile field "{key}"',
                nearest(key, DECLARED),
                field=f"profile.{key}",
                value=value,
            )
        if not value:
            raise M1Error(
                Reason.INVALID_ARGUMENT,
                f"--profile {key} is empty",
                f"write --profile {key}=VALUE, or omit it for the machine's default",
                field=f"profile.{key}",
            )
        setattr(profile, key, _profile_value(DECLARED[key], value))
    return profile


def _profile_value(declared: Setting, given: str) -> Value:
    value = convert(declared.kind, given)
    if value is None or not inside(declared, value):
        raise M1Error(
            Reason.INVALID_ARGUMENT,
            f'--profile {declared.name}="{given}" is invalid',
            f"expected {takes(declared)}",
            field=f"profile.{declared.name}",
            value=given,
        )
    return value


def checkpoint_source(checkpoint: str) -> str:
    """Return a checkpoint as the daemon knows it: an id unchanged, a path absolute."""
    is_path = os.sep in checkpoint or checkpoint[:1] in {".", "~"} or os.path.isdir(checkpoint)
    return os.path.abspath(os.path.expanduser(checkpoint)) if checkpoint and is_path else checkpoint


def data_source(client: Client, data: str) -> str:
    """Return data as the daemon knows it: a name unchanged, a path absolute.

    A path has a separator, begins with "." or "~", or exists here and is not a dataset's name.

    Raises:
        M1Error: INVALID_ARGUMENT for an empty one.
    """
    if not data:
        raise M1Error(Reason.INVALID_ARGUMENT, "--data is empty", "name a dataset or a path, or omit it", field="data")
    if os.sep in data or data[0] in ".~":
        return os.path.abspath(os.path.expanduser(data))
    if os.path.exists(data) and data not in {dataset.name for dataset in client.datasets()}:
        return os.path.abspath(data)
    return data
