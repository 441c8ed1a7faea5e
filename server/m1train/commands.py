"""What the command line does: describe, prepare, run a job's directory, train without a daemon."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from m1.datasets import check_source
from m1.errors import ExitCode, M1Error, Reason
from m1.jobdir import Profile, Spec, has_spec, lock_path, read_spec, spec_path, write_spec
from m1.journal import Exited, JournalWriter, Metrics, journal_path, read_journal
from m1.paths import home_from_environment
from m1.settings import resolve

from m1train.catalogue import DECLARATIONS, declaration
from m1train.job.lock import hold_lock
from m1train.task import own_file as own_recipe
from m1train.task.settings import Declaration, declared


def describe() -> int:
    """Print every recipe of m1d's own and its settings as one JSON document."""
    json.dump({"recipes": [declared.to_json() for declared in DECLARATIONS.values()]}, sys.stdout, indent=1)
    sys.stdout.write("\n")
    return ExitCode.OK


def describe_file(path: str, class_name: str, settings: str) -> NoReturn:
    """Check a user's own recipe with the settings of a JSON file, and print it as JSON, or the error that it has."""

    def checked() -> Declaration:
        file = own_recipe.OwnFile(Path(os.path.abspath(path)), os.path.basename(path))
        given = json.loads(Path(settings).read_bytes()) if settings else {}
        os.chdir(file.path.parent)  # what the file leaves behind is its own directory's
        declaration = own_recipe.read(file, class_name)
        own_recipe.rehearsed(file, declaration, given)
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


def prepare_data(data_root: str, source: str, name: str) -> int:
    """Read a data set into the cache; JSON lines of progress on stdout, the last one the manifest or the error."""

    def say(line: Mapping[str, object]) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    def progress(phase: str, done: int, total: int) -> None:
        say({"progress": {"phase": phase, "done": done, "total": total}})

    def fail(error: M1Error) -> int:
        say({"error": {**asdict(error), "reason": error.reason.value}})
        return ExitCode.ERROR

    try:
        from m1train.attempt.data import throttled
        from m1train.data.cache import read_manifest
        from m1train.data.prepare import prepare

        manifest = read_manifest(prepare(Path(data_root), source, throttled(progress), name))
        assert manifest is not None
    except M1Error as error:
        return fail(error)
    except ImportError as error:
        return fail(M1Error(Reason.TORCH_MISSING, f"a library is missing ({error})", "pip install 'm1d[daemon]'"))
    except Exception as error:  # noqa: BLE001 - the daemon knows of it what is said here, and nothing else
        traceback.print_exception(error)
        if isinstance(error, MemoryError):
            message = f'the memory did not suffice to read "{source}"'
            return fail(M1Error(Reason.OUT_OF_MEMORY, message, "close something large and try again"))
        message = f'reading "{source}" failed ({type(error).__name__}: {error})'
        return fail(M1Error(Reason.INTERNAL, message, "this is a defect: please report it"))
    say({"dataset": asdict(manifest)})
    return ExitCode.OK


def run_directory(directory: str, attempt: int | None) -> int:
    """Run one attempt at a job; 0 unless it failed."""
    path = Path(os.path.abspath(directory))
    if not path.is_dir():
        raise M1Error(Reason.INVALID_ARGUMENT, f'"{path}" is not a job\'s directory', field="directory")
    lock = hold_lock(path)
    try:
        exited = _attempt(path, _spec(path), attempt)
        # The daemon reads in the journal how it ended; to have yielded or stopped as it was asked is no error.
        return ExitCode.ERROR if exited.outcome == "failed" else ExitCode.OK
    finally:
        os.close(lock)


def train_alone(
    recipe: str, data: str, settings: Mapping[str, str], out: str | None, threads: int | None, dtype: str
) -> int:
    """Train without a daemon, in a job's directory of one's own; 0 unless it was interrupted.

    Raises:
        M1Error: why it failed. A directory that was not asked for by name is gone again when nothing was trained.
    """
    from m1train.data.scratch import make_private

    values = resolve(declared(declaration(recipe).config), settings)
    home = home_from_environment()
    if os.sep in data or os.path.exists(data):
        data = os.path.abspath(data)
    check_source(home.data, data)
    profile = Profile(threads=threads or _default_threads(), dtype=dtype)
    try:
        make_private(home.data)
        path = _own_directory(out) if out else Path(tempfile.mkdtemp(prefix=f"m1train-{recipe}-"))
    except OSError as error:
        message = f'"{error.filename}" cannot be used ({error.strerror})'
        raise M1Error(Reason.NOT_ALLOWED, message, "choose another --out or M1D_HOME") from error
    exited: Exited | None = None
    try:
        exited = _train_in(path, Spec(path.name, recipe, data, str(home.data), values, profile))
    finally:
        if not out and (exited is None or (exited.outcome != "succeeded" and not exited.step)):
            shutil.rmtree(path)
    if path.exists():
        sys.stdout.write(f"{path}\n")
    if exited.outcome == "failed":
        raise M1Error(Reason(exited.code), exited.message, exited.hint)
    if exited.outcome == "succeeded":
        for entry in read_journal(journal_path(path, _next_attempt(path) - 1), 0, limit_bytes=2**30):
            if isinstance(entry.record, Metrics) and "test/accuracy" in entry.record.values:
                sys.stdout.write("".join(f"{key} {value:.4f}\n" for key, value in entry.record.values.items()))
        return ExitCode.OK
    if path.exists():
        sys.stderr.write(f"it goes on with the same command and --out {path}\n")
    return ExitCode.INTERRUPTED


def _own_directory(out: str) -> Path:
    """The directory of --out: new, empty, or an earlier run's."""
    path = Path(os.path.abspath(out))
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not spec_path(path).exists() and {file.name for file in path.iterdir()} - {lock_path(path).name}:
        message = f'"{path}" is not empty and holds no earlier run'
        raise M1Error(Reason.INVALID_ARGUMENT, message, "choose another --out", field="out", value=str(path))
    return path


def _train_in(path: Path, spec: Spec) -> Exited:
    lock = hold_lock(path)
    try:
        if not spec_path(path).exists():
            write_spec(path, spec)
        elif not has_spec(path, spec):
            message = f'"{path}" holds another job'
            raise M1Error(Reason.INVALID_ARGUMENT, message, "repeat what it was begun with, or choose another --out")
        return _attempt(path, spec, None)
    finally:
        os.close(lock)


def _attempt(path: Path, spec: Spec, attempt: int | None) -> Exited:
    from m1train.attempt.run import run_attempt

    # stderr is the job's log.
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    number = attempt if attempt is not None else _next_attempt(path)
    try:
        journal = JournalWriter(journal_path(path, number))
    except FileExistsError as error:
        message = f"attempt {number} of this job has been made"
        raise M1Error(Reason.WRONG_STATE, message, field="attempt", value=str(number)) from error
    return run_attempt(path, spec, journal)


def _spec(path: Path) -> Spec:
    try:
        return read_spec(path)
    except (OSError, ValueError) as error:
        raise M1Error(Reason.INVALID_ARGUMENT, f'"{path}" is not a job\'s directory ({error})') from error


def _next_attempt(path: Path) -> int:
    number = 1
    while journal_path(path, number).exists():
        number += 1
    return number


def _default_threads() -> int:
    import torch

    return torch.get_num_threads()
