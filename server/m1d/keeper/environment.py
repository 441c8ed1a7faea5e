"""What a program's environment has: what the daemon passes on, what was asked for, and what leads to the job."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

from m1.spec import Program

# The way to `m1job`, for whichever Python the program runs on: a folder in the job's directory with nothing else in it.
_LIBRARY = "python"


def program_environment(passed: Mapping[str, str], program: Program, directory: Path, attempt: int) -> dict[str, str]:
    """Make a program's environment.

    Args:
        passed: what the daemon passes on.
        program: what was asked for, which comes before that.
        directory: the job's.
        attempt: its number.

    Raises:
        OSError: the way to m1job could not be made.
    """
    environment = {**passed, **program.environment}
    environment["M1JOB_DIRECTORY"] = str(directory)
    environment["M1JOB_ATTEMPT"] = str(attempt)
    library = _library(directory)
    if library:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [library, environment.get("PYTHONPATH")]))
    return environment


def _library(directory: Path) -> str:
    """The folder with a link to m1job; "" where that is not installed."""
    spec = importlib.util.find_spec("m1job")
    if spec is None or spec.origin is None:
        return ""
    link, package = directory / _LIBRARY / "m1job", Path(spec.origin).parent
    link.parent.mkdir(mode=0o700, exist_ok=True)
    if not link.is_symlink() or Path(os.readlink(link)) != package:
        link.unlink(missing_ok=True)
        link.symlink_to(package)
    return str(link.parent)
