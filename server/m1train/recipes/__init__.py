"""The recipes that m1d brings: their declarations, torch-free, and how to load the one that is trained."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from m1.errors import M1Error, Reason, nearest

from m1train.config import Declaration, resolved
from m1train.measurements import declared
from m1train.recipes import cifar

DECLARATIONS: Mapping[str, Declaration] = {
    declaration.name: declaration for declaration in (cifar.DECLARATION, *declared.DECLARATIONS)
}


def declaration(name: str) -> Declaration:
    """The recipe's declaration.

    Raises:
        M1Error: RECIPE_NOT_FOUND.
    """
    if name not in DECLARATIONS:
        raise M1Error(
            Reason.RECIPE_NOT_FOUND,
            f'there is no recipe "{name}"',
            nearest(name, DECLARATIONS),
            field="recipe",
            value=name,
        )
    return DECLARATIONS[name]


def load(name: str, settings: Mapping[str, object]) -> Any:
    """The recipe or the measurement of a name, with its settings; imports torch.

    Raises:
        M1Error: RECIPE_NOT_FOUND, INVALID_SETTING.
    """
    declared = declaration(name)
    config = resolved(declared.config, settings)
    module, _, implementation = declared.implementation.partition(":")
    return getattr(importlib.import_module(module), implementation)(config)
