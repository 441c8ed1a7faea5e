"""A recipe that is not m1d's own: a class of a user's file, or of an installed package, as a Declaration.

A file is read, its hash is verified, and exactly what was verified is run: no cached bytecode of another version. What
is wrong with it is a BAD_RECIPE that names the file as its owner calls it, and the line in it.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import sys
import traceback
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from m1.errors import M1Error, Reason, last_line, nearest, sendable, shortened
from m1.installed import GROUP, InstalledRecipe
from m1.settings import Setting, check

from m1train.task.settings import KINDS, Config, Declaration, EngineConfig, declared, resolved

if TYPE_CHECKING:
    from m1train.task.recipe import AnyTask

# The module that a user's file becomes; dataclasses and pickles look it up by this name.
_MODULE = "own_recipe"
# How many random samples a recipe is tried with.
_EXAMPLES = 64

# What a user's file says may be as long as it likes.
_LONGEST_PROBLEM = 500
# A docstring's first line and all settings with their sentences, as they are sent.
_LONGEST_DECLARATION_BYTES = 2**16


@dataclass(frozen=True)
class OwnFile:
    """A user's file: where it is, and what its owner calls it."""

    path: Path
    name: str

    def bad(self, problem: str, hint: str, line: int | None = None) -> M1Error:
        """The error that says what is wrong with it, and where."""
        where = f"{self.name}:{line}" if line else self.name
        problem, hint = (shortened(sendable(text), _LONGEST_PROBLEM) for text in (problem, hint))
        return M1Error(Reason.BAD_RECIPE, f"{where}: {problem}", hint, field="recipe_file", value=self.name)

    def line(self, error: BaseException) -> int | None:
        """The innermost line of the file that an error came through."""
        if isinstance(error, SyntaxError) and error.filename == str(self.path):
            return error.lineno
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(self.path)]
        return lines[-1] if lines else None

    @contextmanager
    def blamed(self, doing: str, otherwise: int | None = None) -> Iterator[None]:
        """Turn whatever the file's code raises inside into the error that says so: "mine.py:7: cannot ... (...)".

        Whatever: an M1Error that is raised inside is the file's, too.

        Args:
            doing: What fails.
            otherwise: The line to name when the error came through none of the file's.

        Raises:
            M1Error: BAD_RECIPE.
        """
        try:
            yield
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and not self.path.is_file():
                raise  # a package is also imported at a terminal; a file is where no Ctrl-C can reach it
            hint = "put it right and submit it again"
            if isinstance(error, ImportError):
                hint = "only the file itself is sent: what it imports must be installed where the daemon runs"
            elif isinstance(error, FileNotFoundError) and not os.path.isabs(str(error.filename or "/")):
                hint = "only the file itself is sent, and it runs elsewhere: use an absolute path, or --data"
            raise self.bad(f"{doing} ({last_line(error)})", hint, self.line(error) or otherwise) from error


def read(file: OwnFile, class_name: str = "", sha256: str = "") -> Declaration:
    """Run a file and declare the recipe in it; imports torch.

    Args:
        file: The file.
        class_name: The class to take; empty: the only recipe that is there.
        sha256: What its content must have; empty: anything.

    Raises:
        M1Error: BAD_RECIPE.
    """
    content = file.path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if sha256 and found != sha256:
        problem = f"its copy in the job's directory was changed (SHA-256 {found[:12]}, and not {sha256[:12]})"
        raise file.bad(problem, "submit the job again with the file that you want")
    module = types.ModuleType(_MODULE)
    module.__file__ = str(file.path)
    sys.modules[_MODULE] = module
    with file.blamed("it cannot be imported"):
        exec(compile(content, str(file.path), "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - its purpose
    recipe = _chosen(file, module, class_name)
    return _declared(recipe, file, f"{recipe.__name__}@{found}")


def rehearsed(file: OwnFile, declaration: Declaration, settings: Mapping[str, object], data: str = "") -> None:
    """Try a file's recipe with its settings, on random samples of what it needs, or on what it reads itself.

    One that reads its data itself is not tried without any.

    Raises:
        M1Error: BAD_RECIPE, or INVALID_SETTING.
    """
    from m1train.engine.examples import examples
    from m1train.engine.rehearsal import rehearse
    from m1train.task.own_data import own_samples

    recipe = getattr(sys.modules[_MODULE], declaration.name)
    config = resolved(declaration.config, settings)
    needs = [need.with_settings(vars(config)) for need in declaration.needs]
    if not declaration.reads_data:
        rehearse(recipe, config, lambda task: examples(task, needs, _EXAMPLES), partial(_tried, file, recipe))
    elif data:
        rehearse(recipe, config, lambda task: own_samples(task, Path(data)), partial(_tried, file, recipe))


@contextmanager
def _tried(file: OwnFile, recipe: type[AnyTask], doing: str) -> Iterator[None]:
    """As `OwnFile.blamed`; and what the engine finds unfit is said in its own words."""
    from m1train.task.recipe import UnfitError

    unfit: UnfitError | None = None
    with file.blamed(doing, _line_of(file, recipe.__name__)):
        try:
            yield
        except UnfitError as error:
            unfit = error
    if unfit:
        raise file.bad(str(unfit), unfit.hint, _line_of_unfit(file, recipe, unfit.where))


def _line_of_unfit(file: OwnFile, recipe: type[AnyTask], where: str) -> int | None:
    if not hasattr(recipe, where):  # a setting, or the recipe itself
        return _line_of(file, where) or _line_of(file, recipe.__name__)
    # The method may be the one that every recipe has; what it gives is then the model's doing.
    here = (inspect.unwrap(getattr(recipe, name)) for name in (where, "model", "network") if hasattr(recipe, name))
    codes = (found.__code__ for found in here if inspect.isfunction(found))
    lines = [code.co_firstlineno for code in codes if code.co_filename == str(file.path)]
    return lines[0] if lines else None


def _chosen(file: OwnFile, module: types.ModuleType, class_name: str) -> type[AnyTask]:
    from m1train.task.recipe import Task

    # By the name under which the job will find it again: not a class of a function, nor one under a second name.
    here = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, Task)
        and (value.__module__, value.__qualname__) == (_MODULE, name)
    }
    if not here:
        raise file.bad(
            "there is no recipe in it",
            "it is a class at the top level that derives from Classifier or Task of m1train.recipe;"
            " m1ctl recipes new writes one",
        )
    if class_name and class_name not in here:
        raise file.bad(f'there is no recipe "{class_name}" in it', nearest(class_name, here))
    if not class_name and len(here) > 1:
        raise file.bad(f"there are {len(here)} recipes in it", f"choose one with {' or '.join(_calls(file, here))}")
    return here[class_name] if class_name else next(iter(here.values()))


def _calls(file: OwnFile, names: Iterable[str]) -> list[str]:
    return [f"{file.name}:{name}" for name in names]


def of_package(installed: InstalledRecipe) -> Declaration:
    """The recipe of an entry point; imports its package.

    Raises:
        M1Error: BAD_RECIPE.
    """
    from importlib.metadata import EntryPoint

    from m1train.task.recipe import Task

    # What is wrong with a package is said with the package's name; it has no one file.
    package = OwnFile(Path(), f"{installed.package} {installed.version}")
    with package.blamed(f"{installed.value} cannot be imported"):
        found = EntryPoint(installed.name, installed.value, GROUP).load()
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise package.bad(
            f"{installed.value} is no class that derives from Classifier or Task of m1train.recipe", "tell its author"
        )
    return _declared(found, package, f"{installed.name}@{package.name}", installed)


def _declared(
    recipe: type[AnyTask], file: OwnFile, identity: str, installed: InstalledRecipe | None = None
) -> Declaration:
    with file.blamed("its Config cannot be read"):
        wrong = wrong_setting(recipe.Config)
    if wrong:
        name, problem, hint = wrong
        raise file.bad(problem, hint, _line_of(file, name))
    with file.blamed(f"what {recipe.__name__} says of itself cannot be read", _line_of(file, recipe.__name__)):
        declaration = Declaration(
            name=installed.name if installed else recipe.__name__,
            summary=inspect.cleandoc(recipe.__doc__ or "It has no docstring.").split("\n", 1)[0],
            default_data=recipe.default_data,
            config=recipe.Config,
            implementation=f"{recipe.__module__}:{recipe.__qualname__}",
            package=installed.package if installed else "",
            needs=tuple(recipe.needs),
            metrics=tuple(recipe.metrics),
            sample_unit=recipe.sample_unit,
            reads_data=reads_data(recipe),
            uses=tuple(recipe.uses),
            identity=identity,
        )
        wrong = _wrong_text(recipe.__name__, declaration.to_json())
    if wrong:
        name, problem, hint = wrong
        raise file.bad(problem, hint, _line_of(file, name))
    return declaration


def reads_data(recipe: type[AnyTask]) -> bool:
    """Return True if a recipe reads its data itself."""
    from m1train.task.recipe import Task

    return recipe.read is not Task.read


def _wrong_text(recipe: str, said: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """As `wrong_setting`, of all that a recipe says of itself, as plain data: what cannot be sent."""
    texts = {
        (recipe, "the name of the class"): said["name"],
        (recipe, f"the docstring of {recipe}"): said["summary"],
        (recipe, "default_data"): said["default_data"],
        (recipe, "metrics"): json.dumps(said["metrics"], ensure_ascii=False),
        **{(s["name"], f"the setting {s['name']}"): json.dumps(s, ensure_ascii=False) for s in said["settings"]},
    }
    for (name, what), text in texts.items():
        if not isinstance(text, str):
            return name, f"{what} is of the type {type(text).__name__}", "write it between quotation marks"
        if text != sendable(text):
            half = next(letter for letter in text if letter != sendable(letter))
            return name, f"{what} has half a character in it ({half})", "write the whole character"
    size_bytes = sum(len(text.encode()) for text in texts.values())
    if size_bytes > _LONGEST_DECLARATION_BYTES:
        name, what = max(texts, key=lambda key: len(texts[key]))
        problem = f"what it says of itself has {size_bytes} bytes, most of them in {what}"
        return name, problem, f"{_LONGEST_DECLARATION_BYTES} are allowed"
    return None


def wrong_setting(config: type[Config]) -> tuple[str, str, str] | None:
    """The first thing that is wrong with a Config: the name in it, the problem, and the way out; None: it is good."""
    name = getattr(config, "__name__", "Config")
    if not (isinstance(config, type) and issubclass(config, EngineConfig)):
        return name, f"{name} does not derive from TaskConfig", f"write it as class {name}(TaskConfig)"
    if inspect.get_annotations(config) and "__dataclass_fields__" not in vars(config):
        return name, f"{name} is no dataclass", "put @dataclass(frozen=True, kw_only=True) above it"
    kinds = get_type_hints(config)
    for field in fields(config):
        word = getattr(kinds[field.name], "__name__", str(kinds[field.name]))
        example = f'{field.name}: {word} = setting(DEFAULT, "What it is.", minimum=..., maximum=...)'
        if kinds[field.name] not in KINDS:
            return field.name, f"the setting {field.name} is of the type {word}", "a setting is int, float, bool or str"
        if not field.metadata:
            return field.name, f"the setting {field.name} has no bounds", f"declare it as {example}"
    for setting in declared(config):
        problem = _wrong_declaration(setting)
        if problem:
            return setting.name, f"the setting {setting.name} {problem}", 'setting(DEFAULT, "...", minimum=, maximum=)'
    return None


def _wrong_declaration(setting: Setting) -> str:
    if setting.kind in {"int", "float"} and (setting.minimum is None or setting.maximum is None):
        return "has no bounds" if setting.minimum is setting.maximum else "has only one bound"
    if not setting.summary:
        return "has no sentence that says what it is"
    if not all(isinstance(text, str) for text in (setting.summary, setting.unit, *setting.choices)):
        return "has a sentence, a unit or a choice that is not a text"
    if not all(isinstance(bound, (int, float)) for bound in (setting.minimum, setting.maximum) if bound is not None):
        return "has a bound that is not a number"
    try:
        check(setting, setting.default)
    except M1Error as error:
        return f"has a default that it does not take: {error}"
    return ""


def _line_of(file: OwnFile, name: str) -> int | None:
    """The line where a file declares a class or an annotated name; None for a package."""
    if not file.path.is_file():
        return None
    for node in ast.walk(ast.parse(file.path.read_bytes())):
        named = node.target if isinstance(node, ast.AnnAssign) else node
        if isinstance(named, (ast.ClassDef, ast.Name)) and name == getattr(named, "id", getattr(named, "name", "")):
            return named.lineno
    return None
