"""The recipes that m1d brings: their declarations, torch-free, and how to load the one that is trained.

Where that is none of ours, an installed package offers it, or it is a user's own file in the job's directory; to
declare such a one its code is imported, and torch with it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from m1.errors import M1Error, Reason, nearest
from m1.installed import installed_recipes
from m1.jobdir import Spec, recipe_path

from m1train.measurements import declared
from m1train.recipes import chars, cifar, cifar_fast, photos
from m1train.task import own_file as own_recipe
from m1train.task.own_file import OwnFile
from m1train.task.settings import Declaration, resolved

DECLARATIONS: Mapping[str, Declaration] = {
    declaration.name: declaration
    for declaration in (
        cifar.DECLARATION,
        cifar_fast.DECLARATION,
        chars.DECLARATION,
        photos.DECLARATION,
        *declared.DECLARATIONS,
    )
}


def declaration(name: str) -> Declaration:
    """The declaration of a recipe of ours, or of an installed package.

    Raises:
        M1Error: RECIPE_NOT_FOUND; BAD_RECIPE for a package that is broken.
    """
    if name in DECLARATIONS:
        return DECLARATIONS[name]
    installed = {offered.name: offered for offered in reversed(installed_recipes())}
    if name in installed:
        return own_recipe.of_package(installed[name])
    raise M1Error(
        Reason.RECIPE_NOT_FOUND,
        f'there is no recipe "{name}"',
        nearest(name, [*DECLARATIONS, *installed]),
        field="recipe",
        value=name,
    )


def declaration_of_job(directory: Path, spec: Spec) -> Declaration:
    """The declaration of what a job trains.

    Raises:
        M1Error: as `declaration`; BAD_RECIPE for a user's file that is not what was submitted.
    """
    file = spec.recipe_file
    if file is None:
        return declaration(spec.recipe)
    return own_recipe.read(OwnFile(recipe_path(directory), file.name), file.class_name, file.sha256)


def load(found: Declaration, settings: Mapping[str, object]) -> Any:
    """The recipe or the measurement of a declaration, with its settings; imports torch.

    Raises:
        M1Error: INVALID_SETTING.
    """
    config = resolved(found.config, settings)
    module, _, implementation = found.implementation.partition(":")
    return attrgetter(implementation)(importlib.import_module(module))(config)
