"""One attempt at a job: from its directory to its last record.

Everything is wired here. Exactly one process runs this for a job at a time: the one that holds the job's lock.
"""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m1.checkpoint_state import Origin, State
from m1.errors import M1Error, Reason
from m1.failpoints import reach
from m1.jobdir import Spec, checkpoints_path
from m1.journal import Approximate, CheckpointRemoved, Exited, JournalWriter, Notice, Started
from m1.metrics import headline
from m1.process.control import Control, StopRequested
from m1.process.journal import Journal

from m1train import catalogue
from m1train.attempt.ending import failed
from m1train.attempt.imports import keep_the_compiler_out, uncollected
from m1train.engine.position import Position
from m1train.task.settings import Declaration

if TYPE_CHECKING:
    from m1train.job.results import Results
    from m1train.task.recipe import Text

log = logging.getLogger(__name__)


def run_attempt(directory: Path, spec: Spec, writer: JournalWriter) -> Exited:
    """Train until the job is done or this process shall go; the result is journalled and returned."""
    control, journal, position = Control(directory), Journal(writer), Position()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: control.terminate())
    try:
        _attempt(directory, spec, journal, control, position)
        exited = Exited("succeeded")
    except StopRequested as request:
        exited = Exited(request.outcome)
    except BaseException as error:  # noqa: BLE001 - the last one that can say what happened
        exited = failed(error, directory, spec)
    exited = replace(exited, step=position.step)
    log.info("%s%s", exited.outcome, f": {exited.message}" if exited.message else "")
    reach("before.exited")
    journal.leave(exited, stay=control.stay)
    return exited


def _attempt(directory: Path, spec: Spec, journal: Journal, control: Control, position: Position) -> None:
    try:
        with uncollected():
            import torch  # noqa: F401 - all that follows needs it
    except ImportError as error:
        journal.append(Started(os.getpid(), None))
        message = f"torch cannot be imported ({error})"
        raise M1Error(Reason.TORCH_MISSING, message, "pip install 'm1d[daemon]'") from error
    if spec.kind == "training" and not spec.profile.compile:
        keep_the_compiler_out()
    declared = catalogue.declaration_of_job(directory, spec)
    if declared.measures or spec.kind == "tuning":
        _measure(declared, spec, journal, control)
    else:
        _train(declared, directory, spec, journal, control, position)


def _measure(declared: Declaration, spec: Spec, journal: Journal, control: Control) -> None:
    from m1train.engine import device
    from m1train.measurements.context import MeasurementContext

    journal.append(Started(os.getpid(), None))
    measured = catalogue.load(declared, spec.settings)
    device.set_up(spec.profile)
    if spec.kind == "tuning":
        from m1train.tuning.tuning import Tuning

        measured = Tuning(measured, spec.profile, spec.fixed)
    measured.measure(MeasurementContext(spec.profile, control, journal))


def _train(
    declared: Declaration, directory: Path, spec: Spec, journal: Journal, control: Control, position: Position
) -> None:
    with uncollected():
        import torch

        from m1train.attempt.data import open_data, split_up
        from m1train.checkpoints import resume
        from m1train.checkpoints.writer import CheckpointWriter, announcement
        from m1train.engine import device
        from m1train.engine.batches import Batches, raw_batch
        from m1train.engine.loop import Context, Loop
        from m1train.engine.memory import check_batch
        from m1train.engine.training import Training
        from m1train.job.results import Results

    loaded = _newest(directory, spec, journal)
    state = loaded.checkpoint.state if loaded else None
    if loaded:
        # Said again: its writer may have been killed before it could say it.
        # It is of the very step where the training stands: whatever was asked for until now, this one serves.
        position.request = control.look().checkpoint
        journal.append(announcement(loaded.checkpoint, position.request))

    with uncollected():
        task = catalogue.load(declared, spec.settings)
    at = device.set_up(spec.profile)
    if at.notice:
        _warn(journal, at.notice)
    opened = open_data(task, declared, spec, directory, state, journal, control)
    material = split_up(task, opened, spec.data, journal)
    config, info = task.config, opened.info
    batches = Batches(opened.train, material.training, config.batch_size, config.seed, task.least_batch)
    seen = material.training[: task.fit_samples]
    fits = state is None and len(seen) > 0
    training = Training.assemble(task, at, info, raw_batch(opened.train, seen, None) if fits else None)
    check_batch(training, opened.train, len(batches))
    fingerprint = device.fingerprint(spec.profile) | resume.content_fingerprint(declared, config, opened.sha256)
    approximate: list[str] = []
    if loaded and state:
        resume.put_back(loaded, training.model, training.optimizer, info.columns, directory)
        approximate = _approximate(state, resume.changes(state, fingerprint, config), journal)
        _place(position, state, batches.steps_per_epoch)
        _check_something_left(spec, state, config.epochs, batches.steps_per_epoch)
    resumed = loaded.checkpoint if loaded else None
    log.info(
        "%s from step %d of %d: %d training samples, batches of %d, %d threads, torch %s",
        "going on" if resumed else "training",
        position.step,
        config.epochs * batches.steps_per_epoch,
        len(batches),
        config.batch_size,
        spec.profile.threads,
        torch.__version__,
    )
    del loaded
    writer = CheckpointWriter(directory, journal, config.keep_checkpoints, headline(task.metrics), resumed)
    origin = _origin(spec, config, info)
    results = Results(directory, journal)
    if state is None:
        _say_notes(task.notes, results, journal)
    context = Context(fingerprint, approximate, origin, control, journal, writer, results)
    try:
        Loop(training, material, batches, position, context).run()
    finally:
        writer.close()


def _newest(directory: Path, spec: Spec, journal: Journal) -> Any:
    """The newest good checkpoint; what is damaged is said and set aside.

    Raises:
        M1Error: BAD_CHECKPOINT, when there is none and the job was to begin with one.
    """
    from m1train.checkpoints import files, resume

    checkpoints_path(directory).mkdir(mode=0o700, exist_ok=True)
    files.remove_temporary(directory)
    loaded, damaged = resume.newest(directory)
    journal.append(Started(os.getpid(), loaded.checkpoint.state.step if loaded else None))
    for step, problem in damaged:
        name = files.set_aside(directory, step)
        _warn(journal, f"the checkpoint of step {step} is damaged ({problem}) and was set aside as {name}")
        journal.append(CheckpointRemoved(step))
    if spec.has_parent and not loaded:
        message = "; ".join(problem for _, problem in damaged) or "it is gone"
        raise M1Error(
            Reason.BAD_CHECKPOINT,
            f"the checkpoint that the job was to begin with cannot be used ({message})",
            "submit it again with another one",
        )
    return loaded


def _approximate(state: State, changes: list[str], journal: Journal) -> list[str]:
    """All that has differed in the job so far, in words, which is said."""
    approximate = [*state.approximate, *(words for words in changes if words not in state.approximate)]
    if approximate:
        log.warning("from step %d on approximate, not bit for bit: %s", state.step, "; ".join(approximate))
        journal.append(Approximate(approximate))
    return approximate


def _place(position: Position, state: State, steps_per_epoch: int) -> None:
    """Stand where a checkpoint stands; of a job with other batches, the epochs are others, too."""
    validated = state.validated_step
    if validated is None:
        validated = state.validated_epochs * steps_per_epoch
    position.step = state.step
    position.validated_step = min(validated, state.step)
    position.validation = state.validation
    position.took_s = state.took_s
    position.saved = (state.step, position.validated_step)


def _check_something_left(spec: Spec, state: State, epochs: int, steps_per_epoch: int) -> None:
    """Refuse a job that begins with a checkpoint of another one and would not train one step."""
    if (state.job and state.job.id == spec.job_id) or state.step < epochs * steps_per_epoch:
        return
    raise M1Error(
        Reason.INVALID_SETTING,
        f"nothing is left to train: the checkpoint stands at step {state.step:,}, and {epochs:,} epochs of "
        f"{steps_per_epoch:,} steps end at step {epochs * steps_per_epoch:,}",
        f"submit it with at least {state.step // steps_per_epoch + 1:,} epochs",
        field="settings.epochs",
        value=str(epochs),
    )


def _origin(spec: Spec, config: Any, info: Any) -> Origin:
    facts = json.dumps(info.facts, ensure_ascii=False) if info.facts else ""
    columns = list(info.columns.values())
    return Origin(spec.job_id, spec.recipe, spec.data, asdict(config), asdict(spec.profile), columns, facts)


def _say_notes(notes: Sequence[Text], results: Results, journal: Journal) -> None:
    """Say what there is to say of a new model; it stands among the results as well."""
    for note in notes:
        log.info("%s", note.text)
        journal.append(Notice("info", note.text))
    results.store(notes, 0)


def _warn(journal: Journal, message: str) -> None:
    log.info("%s", message)
    journal.append(Notice("warning", message))
