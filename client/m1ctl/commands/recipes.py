"""Recipes: `m1ctl recipes`, `m1ctl recipes show RECIPE`, `m1ctl recipes new FILE`."""

from __future__ import annotations

import json
import os
import shlex
from importlib.resources import files
from typing import Annotated

import typer
from m1.errors import M1Error, Reason

from m1ctl.commands.options import Output
from m1ctl.output import Format, put, put_json, tell
from m1ctl.session import session_of

app = typer.Typer(help="List recipes, show one, or start your own.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def list_(context: typer.Context, output: Output = Format.text) -> None:
    """List recipes, show one, or start your own."""
    if context.invoked_subcommand:
        return
    from m1.v1 import recipe_pb2

    from m1ctl.views.pages import recipe_table

    with session_of(context).connect() as client:
        recipes = client.recipes()
    if output is Format.json:
        put_json(recipe_pb2.ListRecipesResponse(recipes=recipes))
    else:
        put(recipe_table(recipes))


@app.command()
def show(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(metavar="RECIPE", help="A recipe's name, or a file of yours: ./mine.py.", show_default=False),
    ],
    output: Output = Format.text,
) -> None:
    """Show a recipe: the data it needs, its settings, metrics and uses."""
    from m1.v1 import recipe_pb2

    from m1ctl.sdk.requests import recipe_named
    from m1ctl.views.pages import recipe_page

    wanted = recipe_named(name)
    with session_of(context).connect() as client:
        recipe = client.recipe(wanted)
    if output is Format.json:
        put_json(recipe_pb2.GetRecipeResponse(recipe=recipe))
    else:
        put(recipe_page(recipe))


@app.command()
def new(
    path: Annotated[
        str, typer.Argument(metavar="FILE", help="The file to write, such as mine.py.", show_default=False)
    ],
    output: Output = Format.text,
) -> None:
    """Write a recipe of your own to start from. It trains as it is.

    Needs no daemon.
    """
    _check_name(path)
    _write_new(path, files("m1ctl").joinpath("recipe_template.txt").read_text())
    if output is Format.json:
        put(json.dumps({"file": os.path.abspath(path)}))
    else:
        tell(f"wrote {path}; train it with m1ctl submit {shlex.quote(path)} --watch")


def _check_name(path: str) -> None:
    """Refuse what a submit would refuse.

    Raises:
        M1Error: INVALID_ARGUMENT.
    """
    from m1.limits import RECIPE_FILE_NAME_BYTES

    name = os.path.basename(path)
    if not name.endswith(".py"):
        raise _refused(path, "is not a Python file", "call it mine.py, for example")
    if not name.isprintable() or len(name.encode()) > RECIPE_FILE_NAME_BYTES:
        way_out = f"use printable characters, at most {RECIPE_FILE_NAME_BYTES} bytes"
        raise _refused(path, "is not a valid name for a recipe's file", way_out)


def _write_new(path: str, text: str) -> None:
    try:
        file = open(path, "x", encoding="utf-8")  # noqa: SIM115 - what cannot be opened is not to be removed
    except FileExistsError:
        message = f'"{path}" already exists'
        raise M1Error(Reason.NAME_TAKEN, message, "choose another name", field="file", value=path) from None
    except OSError as error:
        folder = os.path.dirname(path)
        if folder and not os.path.isdir(folder):
            raise _refused(path, f'cannot be written: directory "{folder}" does not exist', "create it first") from None
        raise _refused(path, f"cannot be written ({error.strerror})", "choose another place") from error
    try:
        with file:
            file.write(text)
    except BaseException:
        os.unlink(path)
        raise


def _refused(path: str, problem: str, way_out: str) -> M1Error:
    return M1Error(Reason.INVALID_ARGUMENT, f'"{path}" {problem}', way_out, field="file", value=path)
