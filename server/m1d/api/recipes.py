"""RecipeService."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format, struct_pb2
from m1.settings import Setting
from m1.v1 import recipe_pb2, recipe_pb2_grpc

from m1d.catalogue.recipes import RecipeInfo, Recipes, UseInfo
from m1d.events.translate import metric_to_proto, recipe_upload


class RecipeService(recipe_pb2_grpc.RecipeServiceServicer):
    """See proto/m1/v1/recipe.proto."""

    def __init__(self, recipes: Recipes) -> None:
        self._recipes = recipes

    async def ListRecipes(self, request: recipe_pb2.ListRecipesRequest, context: Any) -> recipe_pb2.ListRecipesResponse:
        return recipe_pb2.ListRecipesResponse(recipes=map(_recipe, await self._recipes.all()))

    async def GetRecipe(self, request: recipe_pb2.GetRecipeRequest, context: Any) -> recipe_pb2.GetRecipeResponse:
        if request.HasField("recipe_file"):
            recipe = await self._recipes.of_file(recipe_upload(request.recipe_file), {})
        else:
            recipe = await self._recipes.get(request.recipe)
        return recipe_pb2.GetRecipeResponse(recipe=_recipe(recipe))


def _recipe(recipe: RecipeInfo) -> recipe_pb2.Recipe:
    return recipe_pb2.Recipe(
        name=recipe.name,
        summary=recipe.summary,
        default_data=recipe.default_data,
        settings=map(_setting, recipe.settings),
        measures=recipe.measures,
        package=recipe.package,
        needs=[recipe_pb2.Need(kind=need.kind, options=need.options) for need in recipe.needs],
        metrics=map(metric_to_proto, recipe.metrics),
        sample_unit=recipe.sample_unit,
        reads_data=recipe.reads_data,
        uses=map(_use, recipe.uses),
    )


def _use(use: UseInfo) -> recipe_pb2.Use:
    return recipe_pb2.Use(name=use.name, summary=use.summary, options=map(_setting, use.options), inputs=use.inputs)


def _setting(setting: Setting) -> recipe_pb2.Setting:
    return recipe_pb2.Setting(
        name=setting.name,
        kind=setting.kind,
        default=json_format.ParseDict(setting.default, struct_pb2.Value()),  # type: ignore[arg-type]
        minimum=setting.minimum,
        maximum=setting.maximum,
        choices=setting.choices,
        unit=setting.unit,
        summary=setting.summary,
    )
