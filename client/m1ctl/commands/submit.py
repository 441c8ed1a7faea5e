"""`m1ctl submit`: check, read the data, queue."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer
from m1.errors import M1Error, Reason, nearest
from m1.settings import switch

from m1ctl.commands.options import Output
from m1ctl.output import Format, put, put_json, put_json_line, tell
from m1ctl.session import check_not_empty, session_of

if TYPE_CHECKING:
    from m1.v1 import job_pb2

    from m1ctl.sdk.client import Client

# A profile that was measured here, and one that should be.
_TOLD_ORIGINS = ("m1ctl tune", "tune again")


def submit(
    context: typer.Context,
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="m1ctl recipes lists them; or a file of your own, as ./mine.py or ./mine.py:Class.",
            show_default=False,
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(help="A data set's name, or a folder or tar of images; else the recipe's.", show_default=False),
    ] = None,
    epochs: Annotated[str | None, typer.Option(metavar="N", help="Short for --set epochs=N.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the recipe; repeatable.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Else made from the recipe's name.", show_default=False)] = None,
    priority: Annotated[int, typer.Option(help="Higher runs first, from -1000 to 1000.")] = 0,
    profile: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="device, threads, dtype, memory_format, ... (m1ctl show has them all); repeatable.",
        ),
    ] = None,
    retries: Annotated[
        int | None,
        typer.Option(min=0, help="How many attempts in a row may fail without progress; else 2.", show_default=False),
    ] = None,
    from_checkpoint: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="CHECKPOINT",
            help="Begin with this checkpoint: an id, or a directory that m1ctl download made. What is not set here is"
            " as it was there.",
            show_default=False,
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Then follow it as m1ctl watch does.")] = False,
    request_id: Annotated[
        str | None,
        typer.Option(help="The same one twice is the same job: makes a repeated submit safe.", show_default=False),
    ] = None,
    output: Output = Format.text,
) -> None:
    """Queue a training job; prints its id and name."""
    from m1.v1 import job_pb2

    from m1ctl.sdk.requests import absolute_paths, recipe_named
    from m1ctl.views.dataset import PrepareView

    check_not_empty("name", name, "leave --name out, and the job gets one")
    check_not_empty("from", from_checkpoint, "name a checkpoint, or leave --from out to begin anew")
    check_not_empty("request-id", request_id, "leave --request-id out, and the job gets one")
    given = parse_pairs("--set", settings or ())
    if epochs is not None:
        if given.get("epochs", epochs) != epochs:
            raise M1Error(
                Reason.INVALID_ARGUMENT,
                f"--epochs {epochs} and --set epochs={given['epochs']} contradict each other",
                "give one of them",
                field="settings.epochs",
                value=epochs,
            )
        given["epochs"] = epochs
    wanted = recipe_named(recipe)
    wanted_profile = parse_profile(parse_pairs("--profile", profile or ()))
    with session_of(context).connect() as client:
        source = data_source(client, data) if data is not None else ""
        given = absolute_paths(given, lambda: client.recipe(wanted).settings)
        asked = {
            "data": source,
            "settings": given,
            "name": name or "",
            "priority": priority,
            "profile": wanted_profile,
            "retries": retries,
            "from_checkpoint": checkpoint_source(from_checkpoint or ""),
        }

        def send(*, validate_only: bool) -> job_pb2.Job:
            return client.submit(wanted, request_id=request_id or "", validate_only=validate_only, **asked)  # type: ignore[arg-type]

        checked = send(validate_only=True)
        if checked.spec.data:
            with PrepareView(checked.spec.data) as view:
                client.prepare_dataset(checked.spec.data, on_progress=view.show)
        job = send(validate_only=False)
        if any(words in job.spec.profile.origin for words in _TOLD_ORIGINS):
            tell(f"profile: {job.spec.profile.origin}")
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


def parse_pairs(option: str, given: list[str] | tuple[()]) -> dict[str, str]:
    """KEY=VALUE texts as a dictionary; of the same key twice the last one counts.

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
                f"write it as {option} {key or 'KEY'}=VALUE",
                field=option,
                value=text,
            )
        parsed[key] = value
    return parsed


def parse_profile(given: dict[str, str]) -> job_pb2.Profile:
    """A profile with only what was given.

    Raises:
        M1Error: INVALID_ARGUMENT, for an unknown field or a count that is none.
    """
    from m1.v1 import job_pb2

    fields = [name for name in job_pb2.Profile.DESCRIPTOR.fields_by_name if name != "origin"]
    profile = job_pb2.Profile()
    for key, value in given.items():
        if key not in fields:
            raise M1Error(
                Reason.INVALID_ARGUMENT,
                f'a profile has no "{key}"',
                nearest(key, fields),
                field=f"profile.{key}",
                value=value,
            )
        if not value:
            raise M1Error(
                Reason.INVALID_ARGUMENT,
                f"the profile's {key} is empty",
                f"write it as --profile {key}=VALUE, or leave it out for the machine's default",
                field=f"profile.{key}",
            )
        _set_field(profile, key, value)
    return profile


def _set_field(profile: job_pb2.Profile, key: str, value: str) -> None:
    before = getattr(profile, key)
    least = 0 if key == "prefetch" else 1
    if isinstance(before, str):
        setattr(profile, key, value)
    elif isinstance(before, bool) and (is_on := switch(value)) is not None:
        setattr(profile, key, is_on)
    elif not isinstance(before, bool) and value.isdecimal() and least <= int(value) < 2**32:
        setattr(profile, key, int(value))
    else:
        takes = "on or off" if isinstance(before, bool) else f"a whole number from {least} on"
        raise M1Error(
            Reason.INVALID_ARGUMENT,
            f'the profile\'s {key}="{value}" is not possible',
            f"{key} takes {takes}",
            field=f"profile.{key}",
            value=value,
        )


def checkpoint_source(checkpoint: str) -> str:
    """What the daemon calls a checkpoint: an id as it is, a path absolute."""
    is_path = os.sep in checkpoint or checkpoint[:1] in {".", "~"} or os.path.isdir(checkpoint)
    return os.path.abspath(os.path.expanduser(checkpoint)) if checkpoint and is_path else checkpoint


def data_source(client: Client, data: str) -> str:
    """What the daemon calls the data: a name as it is, a path absolute.

    A path has a separator, begins with "." or "~", or names what exists here while no data set is called so.

    Raises:
        M1Error: INVALID_ARGUMENT for an empty one.
    """
    if not data:
        raise M1Error(
            Reason.INVALID_ARGUMENT, 'data "" is empty', "name a data set or a path, or leave --data out", field="data"
        )
    if os.sep in data or data[0] in ".~":
        return os.path.abspath(os.path.expanduser(data))
    if os.path.exists(data) and data not in {dataset.name for dataset in client.datasets()}:
        return os.path.abspath(data)
    return data
