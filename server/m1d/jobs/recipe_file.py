"""A user's own recipe: what may be sent, and where its file is kept.

The file goes into the directory of its job within the transaction that stores the job, before the commit: an answered
submit has its recipe, whatever dies, and the file goes with the job. A directory of a job that is not stored, with
nothing else in it, is what a daemon left that died before the commit.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from m1.durable import replace_file, sync_directory
from m1.errors import M1Error, Reason, shortened
from m1.jobdir import recipe_path
from m1.limits import RECIPE_FILE_BYTES, RECIPE_FILE_NAME_BYTES
from m1.paths import Home
from m1.spec import RecipeFile


@dataclass(frozen=True)
class RecipeUpload:
    """A recipe's file as it was sent."""

    name: str
    class_name: str
    """Empty: the only recipe that is there."""
    content: bytes

    @property
    def sha256(self) -> str:
        """Of the content."""
        return hashlib.sha256(self.content).hexdigest()

    def of_class(self, class_name: str) -> RecipeFile:
        """What a job remembers of it."""
        return RecipeFile(self.name, class_name, self.sha256)


def check_file(file: RecipeUpload) -> None:
    """Refuse what is no file of a recipe, before anything looks into it.

    Raises:
        M1Error: INVALID_ARGUMENT or TOO_LARGE.
    """
    shown = shortened(file.name)
    plain = file.name.endswith(".py") and "/" not in file.name and file.name.isprintable()
    if not plain or len(file.name.encode()) > RECIPE_FILE_NAME_BYTES:
        way_out = f'it takes a file\'s name without a folder, of at most {RECIPE_FILE_NAME_BYTES} bytes: "mine.py"'
        raise _refused("name", shown, f'the recipe file\'s name="{shown}" is not possible', way_out)
    if file.class_name and not file.class_name.isidentifier():
        shown = shortened(file.class_name)
        raise _refused("class_name", shown, f'"{shown}" is not the name of a class', f"write it as {file.name}:Class")
    if len(file.content) > RECIPE_FILE_BYTES:
        message = f"{file.name} has {len(file.content)} bytes"
        raise M1Error(
            Reason.TOO_LARGE, message, f"a recipe's file may have {RECIPE_FILE_BYTES}", field="spec.recipe_file.content"
        )


def _refused(field: str, value: str, message: str, way_out: str) -> M1Error:
    return M1Error(Reason.INVALID_ARGUMENT, message, way_out, field=f"spec.recipe_file.{field}", value=value)


def keep(home: Home, job_id: str, content: bytes) -> None:
    """Put a file into its job's directory; it is durable on return.

    Raises:
        OSError: the disk refuses.
    """
    directory = home.job(job_id)
    directory.mkdir(mode=0o700, exist_ok=True)
    replace_file(recipe_path(directory), content, durable=True)
    sync_directory(home.jobs)


def remove_stray(directory: Path) -> None:
    """Remove the directory of a job that is not stored, if there is nothing in it but a recipe."""
    if directory.is_dir() and all(recipe_path(directory).name in file.name for file in directory.iterdir()):
        shutil.rmtree(directory)
