"""`m1train RECIPE`: train without a daemon, for debugging, in a job's directory of one's own."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from m1.datasets import check_source
from m1.errors import ExitCode, M1Error, Reason
from m1.jobdir import Profile, Spec, has_spec, lock_path, read_spec, spec_path, write_spec
from m1.journal import Exited, Metrics, journal_path, read_journal
from m1.paths import home_from_environment
from m1.process.lock import hold_lock
from m1.processor import this_one_has_bfloat16
from m1.settings import resolve

from m1train.catalogue import declaration
from m1train.commands.run import attempt_at, next_attempt
from m1train.task.settings import declared


def train_alone(
    recipe: str, data: str, settings: Mapping[str, str], out: str | None, threads: int | None, dtype: str
) -> int:
    """Train without a daemon, in a job's directory of one's own; 0 unless it was interrupted.

    Raises:
        M1Error: why it failed. A directory that was not asked for by name is gone again when nothing was trained.
    """
    from m1train.data.scratch import make_private

    known = declaration(recipe)
    values = resolve(declared(known.config), settings)
    home = home_from_environment()
    if os.sep in data or os.path.exists(data):
        data = os.path.abspath(data)
    check_source(home.data, data, [need.with_settings(values) for need in known.needs])
    profile = Profile(threads=threads or _default_threads(), dtype=dtype, optimizer_dtype=_optimizer_dtype(out))
    try:
        make_private(home.data)
        path = _own_directory(out) if out else Path(tempfile.mkdtemp(prefix=f"m1train-{recipe}-"))
    except OSError as error:
        message = f'"{error.filename}" cannot be used ({error.strerror})'
        raise M1Error(Reason.NOT_ALLOWED, message, "choose another --out or M1D_HOME") from error
    exited: Exited | None = None
    try:
        spec = Spec(
            job_id=path.name,
            recipe=recipe,
            data=data,
            data_root=str(home.data),
            settings=values,
            profile=profile,
            metrics=known.metrics,
            sample_unit=known.sample_unit,
        )
        exited = _train_in(path, spec)
    finally:
        if not out and (exited is None or (exited.outcome != "succeeded" and not exited.step)):
            shutil.rmtree(path)
    if path.exists():
        sys.stdout.write(f"{path}\n")
    if exited.outcome == "failed":
        raise M1Error(Reason(exited.code), exited.message, exited.hint)
    if exited.outcome == "succeeded":
        for entry in read_journal(journal_path(path, next_attempt(path) - 1), 0, limit_bytes=2**30):
            if isinstance(entry.record, Metrics) and "test/loss" in entry.record.values:
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
        return attempt_at(path, spec, None)
    finally:
        os.close(lock)


def _optimizer_dtype(out: str | None) -> str:
    """What the run that is gone on with has; else what the processor has instructions for."""
    try:
        return read_spec(Path(out)).profile.optimizer_dtype if out else _best_dtype()
    except (OSError, ValueError):
        return _best_dtype()


def _best_dtype() -> str:
    return "bfloat16" if this_one_has_bfloat16() else "float32"


def _default_threads() -> int:
    import torch

    return torch.get_num_threads()
