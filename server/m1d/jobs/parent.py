"""Beginning with a checkpoint of another job, or of another home: the parent.

Its files are copied when the job is submitted, before it is stored, to a directory of their own in `jobs/`; the job
remembers its name, and the supervisor moves it to the job's checkpoints before the first start. A copy that no job
remembers is what a dead daemon left, and is removed.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from m1.checkpoint_state import MAX_STATE_BYTES, STATE_FILE, Origin, read_state
from m1.durable import sync, sync_directory
from m1.errors import M1Error, Reason
from m1.failpoints import reach
from m1.jobdir import checkpoint_path, checkpoints_path
from m1.paths import Home
from m1.profile import DECLARED
from m1.settings import Value

COPY = ".seed-"
"""What the name of a copy begins with; 0.1.0 called it so, and its queued jobs remember theirs."""
_LENGTH_OF_EPOCH = ("batch_size", "val_images", "val_samples", "test_fraction")
_STEP = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Parent:
    """A checkpoint to begin with, by what it says of itself."""

    source: Path
    step: int
    epoch: int
    """How many epochs were done at that step."""
    recipe: str
    """Empty, like the others below, where the checkpoint does not say."""
    data: str
    settings: Mapping[str, object]
    profile: Mapping[str, Value]


def read_parent(source: Path) -> Parent:
    """What a checkpoint's directory says. Only the form is checked: the training process verifies every hash.

    Reads a file: call it in a thread.

    Raises:
        M1Error: BAD_CHECKPOINT, or CHECKPOINT_NOT_FOUND.
    """
    try:
        state = read_state(_content(source / STATE_FILE))
        origin = state.job or Origin()
        # A field that this version does not know, or of another kind, is not taken over.
        profile = {k: v for k, v in origin.profile.items() if k in DECLARED and type(v) is type(DECLARED[k].default)}
        known = {k: v for k, v in profile.items() if v is not None}
        return Parent(source, state.step, state.epoch, origin.recipe, origin.data, origin.settings, known)
    except (FileNotFoundError, NotADirectoryError):
        raise M1Error(
            Reason.CHECKPOINT_NOT_FOUND,
            f'"{source}" is not a checkpoint\'s directory (it has no {STATE_FILE})',
            "name a checkpoint that m1ctl checkpoints shows, or a directory that m1ctl download made",
            field="spec.from_checkpoint",
            value=str(source),
        ) from None
    except (OSError, ValueError) as error:
        raise _bad(source, f"{STATE_FILE}: {error}") from error


def check_something_left(parent: Parent, data: str, settings: Mapping[str, Value]) -> None:
    """Refuse a job that would not train one step, as far as that can be told without its data.

    Where its epochs have other lengths than the parent's, the training process can tell.

    Raises:
        M1Error: INVALID_SETTING.
    """
    same = data == parent.data and all(settings.get(name) == parent.settings.get(name) for name in _LENGTH_OF_EPOCH)
    epochs = settings.get("epochs")
    if same and isinstance(epochs, int) and 0 < epochs <= parent.epoch:
        raise M1Error(
            Reason.INVALID_SETTING,
            f"epochs={epochs} leaves nothing to train: the checkpoint has done {parent.epoch} of them",
            f"set epochs to {parent.epoch + 1} or more",
            field="settings.epochs",
            value=str(epochs),
        )


def _content(path: Path) -> bytes:
    """Read a plain file. What is none (a FIFO would wait for its writer) is not opened.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no plain file, or too large.
    """
    if not stat.S_ISREG(path.lstat().st_mode):
        raise ValueError("it is not a plain file")
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # another one was put there meanwhile
            raise ValueError("it is not a plain file")
        content = file.read(MAX_STATE_BYTES + 1)
    if len(content) > MAX_STATE_BYTES:
        raise ValueError("it is too large to be one")
    return content


def copy_checkpoint(home: Home, parent: Parent) -> str:
    """Copy a checkpoint's files for a job to come; the name of the copy.

    Raises:
        M1Error: BAD_CHECKPOINT.
    """
    name = f"{COPY}{secrets.token_hex(8)}"
    target = home.jobs / name / f"step-{parent.step:08d}"
    try:
        target.mkdir(mode=0o700, parents=True)
        reach("before.parent.copy")
        for entry in sorted(parent.source.iterdir()):
            if not stat.S_ISREG(entry.lstat().st_mode):
                raise _bad(parent.source, f'"{entry.name}" is not a plain file')
            shutil.copyfile(entry, target / entry.name, follow_symlinks=False)
            with open(target / entry.name, "rb") as file:
                sync(file.fileno())
        sync_directory(target)
        sync_directory(target.parent)
    except BaseException as error:
        remove_copy(home, name)
        if isinstance(error, OSError):
            raise _bad(parent.source, str(error)) from error
        raise
    sync_directory(home.jobs)
    reach("after.parent.copy")
    return name


def remove_copy(home: Home, name: str) -> None:
    """Remove a copy that no job will have."""
    shutil.rmtree(home.jobs / name, ignore_errors=True)


def move_in(home: Home, parent_copy: str, directory: Path) -> None:
    """Make the copy the job's only checkpoint, if that has not been done yet."""
    copy = home.jobs / parent_copy
    if not copy.exists():
        return
    reach("before.parent.move")
    checkpoints_path(directory).mkdir(mode=0o700, exist_ok=True)
    for entry in copy.iterdir():
        step = _STEP.fullmatch(entry.name)
        assert step is not None
        entry.rename(checkpoint_path(directory, int(step[1])))
    sync_directory(checkpoints_path(directory))
    reach("within.parent.move")
    copy.rmdir()
    reach("after.parent.move")


def remove_strays(home: Home, remembered: Iterable[str]) -> None:
    """Remove the copies that no job remembers."""
    known = set(remembered)
    for copy in home.jobs.glob(f"{COPY}*"):
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
