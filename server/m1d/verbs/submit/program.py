"""Checking a job that runs a program: everything that can be known without running it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import NoReturn

from m1.errors import M1Error, Reason, shortened
from m1.limits import COMMAND_BYTES, ENVIRONMENT_BYTES
from m1.profile import Profile
from m1.spec import JobSpec, Program

from m1d.processes.blocking import look_at
from m1d.processes.leftovers import MARK

# What leads a program to its job is the daemon's to say.
_RESERVED = ("M1JOB_", MARK)


async def check_program(program: Program, environment: Mapping[str, str]) -> None:
    """Refuse what could not be started; `environment` is what the daemon passes on.

    Raises:
        M1Error: INVALID_ARGUMENT, TOO_LARGE; FILE_NOT_FOUND for the directory, PROGRAM_NOT_FOUND.
    """
    _check_command(program)
    _check_environment(program)
    # The directory may lie on a disk that does not answer.
    await look_at(program.directory, _look, program, {**environment, **program.environment}.get("PATH", os.defpath))


def program_spec(program: Program, profile: Profile, priority: int, retries: int | None) -> JobSpec:
    """Make the specification of a job that runs a program; only the threads of the profile count.

    It is not tried again unless that is asked for: what it has done outside its job is not known.
    """
    return JobSpec(kind="program", recipe="", program=program, profile=profile, priority=priority, retries=retries or 0)


def _check_command(program: Program) -> None:
    if not program.command or not program.command[0]:
        raise _refused("command", "", "there is no program to run", "give it after --: m1ctl run -- python train.py")
    for argument in program.command:
        if "\0" in argument:
            raise _refused("command", shortened(argument), "an argument has a NUL character", "no program can take one")
    size = sum(len(argument.encode()) + 1 for argument in program.command)
    if size > COMMAND_BYTES:
        raise M1Error(
            Reason.TOO_LARGE,
            f"the command has {size} bytes, and {COMMAND_BYTES} are allowed",
            "give the program a file to read",
            field="spec.program.command",
        )


def _check_environment(program: Program) -> None:
    for name, value in program.environment.items():
        if not name or "=" in name or "\0" in name + value:
            shown = shortened(name)
            raise _refused("environment", shown, f'"{shown}" cannot be a variable', "write --env NAME=VALUE")
        if name.startswith(_RESERVED):
            raise _refused("environment", name, f"{name} is set by the daemon", "choose another name")
    size = sum(len(f"{name}={value}".encode()) + 1 for name, value in program.environment.items())
    if size > ENVIRONMENT_BYTES:
        raise M1Error(
            Reason.TOO_LARGE,
            f"the environment has {size} bytes, and {ENVIRONMENT_BYTES} are allowed",
            "give the program a file to read",
            field="spec.program.environment",
        )


def _look(program: Program, path: str) -> None:
    directory, name = program.directory, program.command[0]
    if not os.path.isabs(directory):
        shown = shortened(directory)
        raise _refused(
            "directory", directory, f'directory is "{shown}"', "give an absolute path on the daemon's machine"
        )
    if not os.path.isdir(directory):
        raise M1Error(
            Reason.FILE_NOT_FOUND,
            f'directory="{shortened(directory)}" is not a directory on the daemon\'s machine',
            "name one with --cwd",
            field="spec.program.directory",
            value=directory,
        )
    found = shutil.which(os.path.join(directory, name) if os.sep in name else name, path=path)
    if found is None:
        beside = os.path.join(directory, name)
        if os.path.isfile(beside):
            _refuse_file(name, beside)
        where = f"in {directory}" if os.sep in name else "in its PATH"
        raise M1Error(
            Reason.PROGRAM_NOT_FOUND,
            f'there is no program "{shortened(name)}" {where}',
            "give its absolute path, or set PATH with --env",
            field="spec.program.command",
            value=name,
        )


def _refuse_file(name: str, path: str) -> NoReturn:
    """Refuse a file that a shell would not run either; most are scripts that lack their interpreter."""
    shown = shortened(name)
    if os.access(path, os.X_OK):
        problem, way_out = f'"{shown}" is not in its PATH', f"to run the one in the directory, write ./{shown}"
    else:
        problem, way_out = (
            f'the file "{shown}" is not executable',
            f"chmod +x {shown}, or name its interpreter before it",
        )
        if name.endswith(".py"):
            way_out = f"write python {shown}"
    raise M1Error(Reason.PROGRAM_NOT_FOUND, problem, way_out, field="spec.program.command", value=name)


def _refused(where: str, value: str, message: str, way_out: str) -> M1Error:
    return M1Error(Reason.INVALID_ARGUMENT, message, way_out, field=f"spec.program.{where}", value=value)
