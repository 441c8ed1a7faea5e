"""What can be trained: `m1ctl recipes`, `m1ctl recipes show NAME`."""

from __future__ import annotations

from typing import Annotated

import typer

from m1ctl.options import Output
from m1ctl.output import Format, put, put_json
from m1ctl.session import session_of

app = typer.Typer(help="List the recipes, or show the settings of one.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def list_(context: typer.Context, output: Output = Format.text) -> None:
    """List the recipes, or show the settings of one."""
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
    name: Annotated[str, typer.Argument(metavar="NAME", help='A recipe, as "cifar".', show_default=False)],
    output: Output = Format.text,
) -> None:
    """Show every setting of a recipe: default, bounds, unit, one sentence."""
    from m1.v1 import recipe_pb2

    from m1ctl.pages import recipe_page

    with session_of(context).connect() as client:
        recipe = client.recipe(name)
    if output is Format.json:
        put_json(recipe_pb2.GetRecipeResponse(recipe=recipe))
    else:
        put(recipe_page(recipe))
