"""The job's directory: the contract between the daemon and the training process, good when either of them is dead.

    spec.json       written once by the daemon before the first start; never changed
    recipe.py       the user's own recipe, where the spec has one; written before the spec
    desired.json    what the daemon wants, replaced in one step whenever that changes
    journal-<n>     what the training process of attempt n did (m1.journal)
    log             what the training processes printed, one after the other
    data-version    the SHA-256 of the data that the first attempt began with; the training process's
    lock            held (flock) by the living training process, from before its first instruction to its last
    checkpoints/    the training process's alone while it lives; the daemon's while nobody holds the lock
    results/        tables, texts and pictures that the training process made, one file each, replaced in one step

The protocol. The daemon opens and locks `lock`, and starts the process with that open file as descriptor LOCK_FD:
the lock belongs to the open file, so it passes to the child without a gap, and the daemon closes its own descriptor.
Whoever finds the lock free knows that no training process lives; whoever finds it held knows that one does, whatever
became of the daemon.

The daemon asks by desired state, which is level-triggered: the process compares it with its own state between two
steps (and wherever else it can stop), so a wish cannot be lost, only replaced by a newer one:

    run     train
    hold    stop between two steps, say `held`, wait; then say `continued`
    yield   write a checkpoint, say `exited: yielded`, go
    stop    say `exited: stopped`, go, without a checkpoint
    checkpoint = n   write a checkpoint if the last one written for a request was for a smaller number; also while held

SIGTERM to the training process means `yield`: the machine is going down.
"""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from m1 import legacy
from m1.durable import read_regular, replace_file
from m1.profile import Profile
from m1.spec import RecipeFile, Spec
from m1.typed import LARGEST, parsed, record

# Where the training process looks for them.
__all__ = ["Profile", "RecipeFile", "Spec"]

# The descriptor by which a training process holds its job's lock.
LOCK_FD = 3


class Want(enum.StrEnum):
    """What the training process shall do."""

    RUN = "run"
    HOLD = "hold"
    YIELD = "yield"
    STOP = "stop"


@dataclass(frozen=True)
class Desired:
    """The desired state."""

    want: Want
    checkpoint: int = 0
    """The number of the newest checkpoint request; 0 if there was none."""


def spec_path(directory: Path) -> Path:
    """The file of the spec."""
    return directory / "spec.json"


def recipe_path(directory: Path) -> Path:
    """The file of the user's own recipe."""
    return directory / "recipe.py"


def desired_path(directory: Path) -> Path:
    """The file of the desired state."""
    return directory / "desired.json"


def lock_path(directory: Path) -> Path:
    """The file that the living training process holds locked."""
    return directory / "lock"


def log_path(directory: Path) -> Path:
    """What the training processes printed."""
    return directory / "log"


def data_version_path(directory: Path) -> Path:
    """The file with the SHA-256 of the data that the first attempt began with."""
    return directory / "data-version"


def checkpoints_path(directory: Path) -> Path:
    """The directory of the checkpoints."""
    return directory / "checkpoints"


def results_path(directory: Path) -> Path:
    """The directory of the results."""
    return directory / "results"


RESULT_ENDINGS = {"table": ".json", "text": ".txt", "image": ".png"}


def result_path(directory: Path, name: str, kind: str) -> Path:
    """The file of a result: "results/confusion.json"."""
    return results_path(directory) / f"{name}{RESULT_ENDINGS[kind]}"


def checkpoint_path(directory: Path, step: int) -> Path:
    """The directory of the checkpoint of a step."""
    return checkpoints_path(directory) / f"step-{step:08d}"


def checkpoint_steps(directory: Path) -> list[int]:
    """The steps of the checkpoints that there are, ascending; they need not be whole."""
    found = []
    for path in checkpoints_path(directory).glob("step-*/"):
        number = path.name.removeprefix("step-")
        if number.isdecimal() and checkpoint_path(directory, int(number)) == path:
            found.append(int(number))
    return sorted(found)


def write_spec(directory: Path, spec: Spec) -> None:
    """Store the spec durably."""
    replace_file(spec_path(directory), _encoded(spec), durable=True)


def has_spec(directory: Path, spec: Spec, *, anywhere: bool = False) -> bool:
    """Return True if this is the stored spec. Of one that 0.1.0 wrote, what it had no field for is not compared.

    With `anywhere` the home may have had another path when it was stored.
    """
    try:
        said = parsed(read_regular(spec_path(directory)))
        stored, wanted = json.loads(_encoded(read_spec(directory))), json.loads(_encoded(spec))
    except (OSError, ValueError):
        return False
    compared = legacy.spec(said) if legacy.is_old_spec(said) else wanted
    return all(stored[name] == wanted[name] for name in compared if not (anywhere and name == "data_root"))


def _encoded(spec: Spec) -> bytes:
    return json.dumps(asdict(spec), indent=1).encode()


def read_spec(directory: Path) -> Spec:
    """The stored spec, also as 0.1.0 wrote it.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a spec.
    """
    try:
        return record(Spec, _plain_spec(directory), LARGEST)
    except ValueError as error:
        raise ValueError(f'"{spec_path(directory)}" is not a job\'s spec ({error})') from error


def _plain_spec(directory: Path) -> Any:
    data = parsed(read_regular(spec_path(directory)))
    try:
        return legacy.spec(data) if legacy.is_old_spec(data) else data
    except KeyError as error:
        raise ValueError(f"there is no {error}") from error


def write_desired(directory: Path, desired: Desired) -> None:
    """Replace the desired state. Not synced: the daemon's store has it, and writes it again before the next start."""
    replace_file(desired_path(directory), json.dumps(asdict(desired)).encode(), durable=False)


def read_desired(directory: Path) -> Desired:
    """The desired state.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a desired state.
    """
    try:
        return record(Desired, parsed(read_regular(desired_path(directory))))
    except ValueError as error:
        raise ValueError(f'"{desired_path(directory)}" is not a desired state ({error})') from error
