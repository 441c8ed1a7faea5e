"""Beginning with a checkpoint of another job, or of another home.

The files are copied when the job is submitted, before it is stored, to a directory of their own in `jobs/`; the job
remembers its name, and the supervisor moves it to the job's checkpoints before the first start. A copy that no job
remembers is what a dead daemon left, and is removed.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from m1.durable import sync, sync_directory
from m1.errors import M1Error, Reason
from m1.failpoints import reach
from m1.jobdir import Profile, checkpoint_path, checkpoints_path
from m1.paths import Home
from m1.settings import Value
from m1.typed import LARGEST, parsed, record

_SEED = ".seed-"
_STEP = re.compile(r"step-(\d{8,})")
_MAX_STATE_BYTES = 2**20


@dataclass(frozen=True)
class Seed:
    """A checkpoint to begin with, by what it says of itself."""

    source: Path
    step: int
    recipe: str
    """Empty, like the others below, where the checkpoint does not say."""
    data: str
    settings: Mapping[str, object]
    profile: Mapping[str, str | int]


@dataclass(frozen=True)
class _Origin:
    """What a state says of the job that it was made for."""

    recipe: str = ""
    data: str = ""
    settings: Mapping[str, Value | None] = field(default_factory=dict)
    profile: Mapping[str, Value | None] = field(default_factory=dict)


@dataclass(frozen=True)
class _State:
    """What is read of a state here."""

    step: int
    job: _Origin | None = None
    """None in a checkpoint of the version before."""


def read_seed(source: Path) -> Seed:
    """What a checkpoint's directory says. Only the form is checked: the training process verifies every hash.

    Raises:
        M1Error: BAD_CHECKPOINT, or CHECKPOINT_NOT_FOUND.
    """
    path = source / "state.json"
    try:
        if path.stat().st_size > _MAX_STATE_BYTES:
            raise _bad(source, "state.json is too large to be one")
        state = record(_State, parsed(path.read_bytes()), LARGEST)
        if state.step >= 10**9:
            raise _bad(source, f"state.json: step={state.step}")
        job = state.job or _Origin()
        known = {f.name: type(getattr(Profile(), f.name)) for f in fields(Profile)}
        profile = {k: v for k, v in job.profile.items() if isinstance(v, (str, int)) and type(v) is known.get(k)}
        return Seed(source, state.step, job.recipe, job.data, job.settings, profile)
    except (FileNotFoundError, NotADirectoryError):
        raise M1Error(
            Reason.CHECKPOINT_NOT_FOUND,
            f'"{source}" is not a checkpoint\'s directory (it has no state.json)',
            "name a checkpoint that m1ctl checkpoints shows, or a directory that m1ctl download made",
            field="spec.from_checkpoint",
            value=str(source),
        ) from None
    except (OSError, ValueError) as error:
        raise _bad(source, f"state.json: {error}") from error


def copy_checkpoint(home: Home, seed: Seed) -> str:
    """Copy a checkpoint's files for a job to come; the name of the copy.

    Raises:
        M1Error: BAD_CHECKPOINT.
    """
    name = f"{_SEED}{secrets.token_hex(8)}"
    target = home.jobs / name / f"step-{seed.step:08d}"
    try:
        target.mkdir(mode=0o700, parents=True)
        reach("before.seed.copy")
        for entry in sorted(seed.source.iterdir()):
            if not entry.is_file() or entry.is_symlink():
                raise _bad(seed.source, f'"{entry.name}" is not a plain file')
            shutil.copyfile(entry, target / entry.name)
            with open(target / entry.name, "rb") as file:
                sync(file.fileno())
        sync_directory(target)
        sync_directory(target.parent)
    except BaseException as error:
        remove_copy(home, name)
        if isinstance(error, OSError):
            raise _bad(seed.source, str(error)) from error
        raise
    sync_directory(home.jobs)
    reach("after.seed.copy")
    return name


def remove_copy(home: Home, name: str) -> None:
    """Remove a copy that no job will have."""
    shutil.rmtree(home.jobs / name, ignore_errors=True)


def move_in(home: Home, seed: str, directory: Path) -> None:
    """Make the copy the job's only checkpoint, if that has not been done yet."""
    copy = home.jobs / seed
    if not copy.exists():
        return
    reach("before.seed.move")
    checkpoints_path(directory).mkdir(mode=0o700, exist_ok=True)
    for entry in copy.iterdir():
        step = _STEP.fullmatch(entry.name)
        assert step is not None
        entry.rename(checkpoint_path(directory, int(step[1])))
    sync_directory(checkpoints_path(directory))
    reach("within.seed.move")
    copy.rmdir()
    reach("after.seed.move")


def remove_strays(home: Home, remembered: Iterable[str]) -> None:
    """Remove the copies that no job remembers."""
    known = set(remembered)
    for copy in home.jobs.glob(f"{_SEED}*"):
        if copy.name not in known:
            shutil.rmtree(copy)


def _bad(source: Path, problem: str) -> M1Error:
    return M1Error(
        Reason.BAD_CHECKPOINT,
        f'the checkpoint "{source}" cannot be used: {problem}',
        "download it again, or begin with another one",
        field="spec.from_checkpoint",
        value=str(source),
    )
