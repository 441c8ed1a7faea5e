"""A job's data: read into the cache or by its recipe, and split into what trains, what validates and what tests."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from m1.checkpoint_state import State
from m1.columns import normalised, words_of
from m1.durable import replace_file
from m1.errors import M1Error, Reason
from m1.jobdir import Spec, Want, data_version_path
from m1.journal import Notice, Phase
from m1.process.control import Control
from m1.process.journal import Journal
from m1.units import counted
from numpy.typing import NDArray

from m1train.data.cache import newest, open_dataset
from m1train.data.prepare import prepare
from m1train.data.progress import throttled
from m1train.engine.examples import needs_of
from m1train.engine.loop import Material
from m1train.job.obey import check_stop
from m1train.task.own_data import own_data
from m1train.task.recipe import AnyTask, DataInfo, Samples
from m1train.task.settings import Declaration

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """A job's data, read."""

    info: DataInfo
    train: Samples
    val: Samples | None
    test: Samples | None
    sha256: str
    notes: Sequence[str] = ()
    """How they were read, and what was left out or taken as something else, a sentence each."""
    warnings: Sequence[str] = ()
    """What is likely a mistake in them."""


def open_data(
    task: AnyTask,
    declared: Declaration,
    spec: Spec,
    directory: Path,
    state: State | None,
    journal: Journal,
    control: Control,
) -> Opened:
    """Open the job's data, which are read first where that is needed.

    `state` is of the checkpoint that it goes on from.

    Raises:
        M1Error: BAD_DATA, DATASET_NOT_FOUND, DOWNLOAD_FAILED, DISK_FULL.
        StopRequested: the daemon wants this process to go.
    """
    began = time.monotonic()
    journal.append(Phase("read data"))
    facts = json.loads(state.job.facts) if state and state.job and state.job.facts else None
    if declared.reads_data:
        read = own_data(task, Path(spec.data), directory, facts)
        opened = Opened(read.info, read.train, None, read.test, read.sha256)
    else:
        # A checkpoint of its own names the version of the data that the job began with; before there is one, a file.
        own = state and state.job and state.job.id == spec.job_id
        version = str(state.fingerprint.get("data", "")) if state and own else _begun_with(directory)
        opened = _from_cache(task, spec, facts, version, journal, control)
        if not version:
            _begin_with(directory, opened.sha256)
    if not (state and state.job and state.job.id == spec.job_id):  # else it has been said
        for note in opened.notes:
            _tell(journal, note)
        for warning in opened.warnings:
            _tell(journal, warning, "warning")
    check_stop(control)  # but to hold is the loop's: from there on the daemon is told
    tested = f"{len(opened.test)} to test on" if opened.test is not None else "no test split"
    if opened.val is not None:
        tested = f"{len(opened.val)} to validate on, {tested}"
    took_s = time.monotonic() - began
    log.info("data %s: %d samples to train on, %s (%.1f s)", spec.data, len(opened.train), tested, took_s)
    return opened


def _begun_with(directory: Path) -> str:
    """The SHA-256 of the data that an earlier attempt began with; "" where there was none."""
    with contextlib.suppress(FileNotFoundError):
        return data_version_path(directory).read_text(errors="replace").strip()
    return ""


def _begin_with(directory: Path, sha256: str) -> None:
    try:
        replace_file(data_version_path(directory), f"{sha256}\n".encode(), durable=False)
    except OSError as error:  # then only the first checkpoint says it
        log.warning("the version of the data could not be noted (%s)", error)


def _from_cache(
    task: AnyTask,
    spec: Spec,
    facts: Mapping[str, Any] | None,
    version: str,
    journal: Journal,
    control: Control,
) -> Opened:
    def say(phase: str, done: int, total: int) -> None:
        journal.append(Phase(f"{phase} data", done, total))

    def wait_while_held() -> None:
        while check_stop(control) is Want.HOLD:
            control.rest()

    progress = throttled(say, wait_while_held)
    needs = needs_of(task)
    root = Path(spec.data_root)
    try:
        read = prepare(root, spec.data, progress, needs=needs, content_sha256=version)
    except M1Error as error:
        # It was whole when it was submitted: what was read then is there.
        known = newest(root, spec.data, normalised(needs)) if error.reason is Reason.BAD_DATA else None
        if known is None:
            raise
        said = f"{error.message}: the job trains on what was read before that, and not on what is there now"
        _tell(journal, said, "warning")
        read = known
    dataset = open_dataset(read)
    train = dataset.splits["train"]
    info = DataInfo(dataset.columns, facts if facts is not None else task.facts(train))
    samples = {split: task.samples(arrays, info) for split, arrays in dataset.splits.items()}
    read_as = f"the data are read as {words_of(list(dataset.columns.values()))}"
    return Opened(
        info,
        samples["train"],
        samples.get("val"),
        samples.get("test"),
        dataset.content_sha256,
        (read_as, *dataset.manifest.notes),
        dataset.manifest.warnings,
    )


def split_up(task: AnyTask, opened: Opened, source: str, journal: Journal) -> Material:
    """Choose what trains, what validates and what tests; what is not as the settings have it is said.

    Raises:
        M1Error: BAD_DATA, when there is too little to train on.
    """
    training = np.arange(len(opened.train))
    test, tested = opened.test, np.arange(len(opened.test or ()))
    if test is None:
        n_test = max(1, round(len(training) * task.config.test_fraction))
        training, tested = task.split(opened.train, training, n_test, "test")
        test = opened.train
        _tell(
            journal, f"the data have no test split: {len(tested)} of {len(opened.train)} samples are set apart as one"
        )
    training, validation = _validation(task, opened, training, journal)
    least = max(2, task.least_batch)
    if len(training) < least:
        raise M1Error(
            Reason.BAD_DATA,
            f'"{source}" leaves {counted(len(training), "sample", "samples")} to train on',
            f"{least} are needed at least",
            field="data",
            value=source,
        )
    val = opened.train if opened.val is None else opened.val
    return Material(opened.info, opened.train, training, val, validation, test, tested)


def _validation(
    task: AnyTask, opened: Opened, training: NDArray[np.int64], journal: Journal
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What is left to train on, and what is validated on: the data's own split for it, or a part of the training."""
    wanted = task.n_validation
    if opened.val is not None:
        return training, np.arange(len(opened.val) if wanted else 0)
    held_out = min(wanted, len(training) // 10)
    if held_out < wanted:
        words = f"{held_out} of the {len(training)} training samples are held out for validation, a tenth"
        _tell(journal, f"{words}, and not {wanted}")
    return task.split(opened.train, training, held_out, "val")


def _tell(journal: Journal, message: str, severity: Literal["info", "warning"] = "info") -> None:
    log.info("%s", message)
    journal.append(Notice(severity, message))
