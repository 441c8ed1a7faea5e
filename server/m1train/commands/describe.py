"""`m1train describe`: the recipes as data, without torch for our own; a user's file is checked and tried."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from m1.errors import ExitCode, M1Error

from m1train.attempt.imports import keep_the_compiler_out, uncollected
from m1train.catalogue import DECLARATIONS, declaration
from m1train.task import own_file as own_recipe
from m1train.task.settings import Declaration


def describe() -> int:
    """Print every recipe of m1d's own and its settings as one JSON document."""
    json.dump({"recipes": [declared.to_json() for declared in DECLARATIONS.values()]}, sys.stdout, indent=1)
    sys.stdout.write("\n")
    return ExitCode.OK


def describe_file(path: str, class_name: str, settings: str, data: str = "") -> NoReturn:
    """Check a user's own recipe with the settings of a JSON file, and print it as JSON, or the error that it has."""

    def checked() -> Declaration:
        file = own_recipe.OwnFile(Path(os.path.abspath(path)), os.path.basename(path))
        given = json.loads(Path(settings).read_bytes()) if settings else {}
        os.chdir(file.path.parent)  # what the file leaves behind is its own directory's
        with uncollected():
            keep_the_compiler_out()
            declaration = own_recipe.read(file, class_name)
        own_recipe.rehearsed(file, declaration, given, data)
        return declaration

    _answer(checked)


def describe_installed(name: str) -> NoReturn:
    """Print the recipe that an installed package offers as JSON, or the error that it has."""
    _answer(lambda: declaration(name))


def _answer(find: Callable[[], Declaration]) -> NoReturn:
    """Print what is found as one line, and be gone; whatever foreign code prints goes to stderr.

    It goes without waiting for threads that were left running.
    """
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        said = {"recipe": find().to_json()}
    except M1Error as error:
        traceback.print_exception(error)
        said = {"error": {**asdict(error), "reason": error.reason.value}}
    answer.write(json.dumps(said) + "\n")
    answer.flush()
    os._exit(ExitCode.OK)
