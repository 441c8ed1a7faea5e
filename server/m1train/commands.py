"""What the command line does: describe, prepare, run a job's directory, train without a daemon."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from m1.errors import ExitCode, M1Error, Reason
from m1.jobdir import Profile, Spec, read_spec, spec_path, write_spec
from m1.journal import JournalWriter, Metrics, journal_path, read_journal
from m1.paths import home_from_environment
from m1.settings import resolve

from m1train.config import declared
from m1train.lock import hold_lock
from m1train.recipes import DECLARATIONS, declaration


def describe() -> int:
    """Print every recipe and its settings as one JSON document."""
    json.dump({"recipes": [declared.to_json() for declared in DECLARATIONS.values()]}, sys.stdout, indent=1)
    sys.stdout.write("\n")
    return ExitCode.OK


def prepare_data(data_root: str, source: str, name: str) -> int:
    """Read a data set into the cache; JSON lines of progress on stdout, the last one the manifest or the error."""
    from m1train.dataset.cache import read_manifest
    from m1train.dataset.prepare import prepare
    from m1train.run import throttled

    def say(line: Mapping[str, object]) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    def progress(phase: str, done: int, total: int) -> None:
        say({"progress": {"phase": phase, "done": done, "total": total}})

    try:
        manifest = read_manifest(prepare(Path(data_root), source, throttled(progress), name))
    except M1Error as error:
        say({"error": {**asdict(error), "reason": error.reason.value}})
        return ExitCode.ERROR
    assert manifest is not None
    say({"dataset": asdict(manifest)})
    return ExitCode.OK


def run_directory(directory: str, attempt: int | None) -> int:
    """Run one attempt at a job; 0 unless it failed."""
    path = Path(os.path.abspath(directory))
    if not path.is_dir():
        raise M1Error(Reason.INVALID_ARGUMENT, f'"{path}" is not a job\'s directory', field="directory")
    lock = hold_lock(path)
    try:
        status = _attempt(path, _spec(path), attempt)
        # The daemon reads in the journal how it ended; to have yielded or stopped as it was asked is no error.
        return ExitCode.OK if status == ExitCode.INTERRUPTED else status
    finally:
        os.close(lock)


def train_alone(
    recipe: str, data: str, settings: Mapping[str, str], out: str | None, threads: int | None, dtype: str
) -> int:
    """Train without a daemon, in a job's directory of one's own; 0 unless it failed."""
    values = resolve(declared(declaration(recipe).config), settings)
    home = home_from_environment()
    if os.sep in data or os.path.exists(data):
        data = os.path.abspath(data)
    path = Path(os.path.abspath(out) if out else tempfile.mkdtemp(prefix=f"m1train-{recipe}-"))
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = hold_lock(path)
    try:
        profile = Profile(threads=threads or _default_threads(), dtype=dtype)
        spec = Spec(path.name, recipe, data, str(home.data), values, profile)
        if not spec_path(path).exists():
            write_spec(path, spec)
        elif _spec(path) != spec:
            message = f'"{path}" holds another job'
            raise M1Error(Reason.INVALID_ARGUMENT, message, "repeat what it was begun with, or choose another --out")
        attempt = _next_attempt(path)
        status = _attempt(path, spec, attempt)
        sys.stdout.write(f"{path}\n")
        if status == ExitCode.INTERRUPTED:
            sys.stderr.write(f"it goes on with the same command and --out {path}\n")
        for entry in read_journal(journal_path(path, attempt), 0, limit_bytes=2**30):
            if isinstance(entry.record, Metrics) and "test/accuracy" in entry.record.values:
                sys.stdout.write("".join(f"{key} {value:.4f}\n" for key, value in entry.record.values.items()))
        return status
    finally:
        os.close(lock)


def _attempt(path: Path, spec: Spec, attempt: int | None) -> ExitCode:
    from m1train.run import run_attempt

    # stderr is the job's log.
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    number = attempt if attempt is not None else _next_attempt(path)
    try:
        journal = JournalWriter(journal_path(path, number))
    except FileExistsError as error:
        message = f"attempt {number} of this job has been made"
        raise M1Error(Reason.WRONG_STATE, message, field="attempt", value=str(number)) from error
    exited = run_attempt(path, spec, journal)
    return {"failed": ExitCode.ERROR, "succeeded": ExitCode.OK}.get(exited.outcome, ExitCode.INTERRUPTED)


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
