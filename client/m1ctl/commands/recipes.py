"""What can be trained: `m1ctl recipes`, `m1ctl recipes show RECIPE`, `m1ctl recipes new FILE`."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated

import typer
from m1.errors import M1Error, Reason

from m1ctl.options import Output
from m1ctl.output import Format, put, put_json, tell
from m1ctl.session import session_of

app = typer.Typer(help="List the recipes, show the settings of one, or begin one.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def list_(context: typer.Context, output: Output = Format.text) -> None:
    """List the recipes, show the settings of one, or begin one."""
    if context.invoked_subcommand:
        return
    from m1.v1 import recipe_pb2

    from m1ctl.pages import recipe_table

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
        str, typer.Argument(metavar="RECIPE", help='"cifar", or a file of your own: ./mine.py.', show_default=False)
    ],
    output: Output = Format.text,
) -> None:
    """Show every setting of a recipe: default, bounds, unit, one sentence."""
    from m1.v1 import recipe_pb2

    from m1ctl.pages import recipe_page
    from m1ctl.requests import recipe_named

    wanted = recipe_named(name)
    with session_of(context).connect() as client:
        recipe = client.recipe(wanted)
    if output is Format.json:
        put_json(recipe_pb2.GetRecipeResponse(recipe=recipe))
    else:
        put(recipe_page(recipe))


@app.command()
def new(
    path: Annotated[str, typer.Argument(metavar="FILE", help="The file to write, as mine.py.", show_default=False)],
) -> None:
    """Write a recipe of your own to begin with; it trains as it is. Needs no daemon."""
    if not path.endswith(".py"):
        raise M1Error(
            Reason.INVALID_ARGUMENT, f'"{path}" is no Python file', "call it mine.py, for example", field="file"
        )
    try:
        with open(path, "x") as file:
            file.write(files("m1ctl").joinpath("recipe_template.txt").read_text())
    except FileExistsError:
        raise M1Error(
            Reason.NAME_TAKEN, f'"{path}" is there already, and was left as it is', "choose another name", field="file"
        ) from None
    tell(f"wrote {path}; train it with m1ctl submit {path} --watch")
