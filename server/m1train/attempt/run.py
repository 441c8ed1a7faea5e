"""One attempt at a job: from its directory to its last record.

Everything is wired here, and every way in which it can end becomes an Exited record here. Exactly one process runs
this for a job at a time: the one that holds the job's lock.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from m1.errors import M1Error, Reason
from m1.failpoints import reach
from m1.jobdir import Profile, Spec, Want, checkpoint_path, checkpoints_path, recipe_path
from m1.journal import Approximate, CheckpointRemoved, Exited, JournalWriter, Notice, Phase, Started
from m1.settings import Value
from numpy.typing import NDArray

from m1train import catalogue as recipes
from m1train.data.cache import Dataset, open_dataset
from m1train.data.decode import bad_data
from m1train.data.prepare import prepare
from m1train.disk import out_of_space
from m1train.engine.position import Position
from m1train.job.control import Control, Leave
from m1train.job.journal import Journal
from m1train.measurements.context import Desk
from m1train.randomness import initial_weights, validation_split
from m1train.task.own_file import OwnFile, last_line
from m1train.task.settings import Declaration, TrainingConfig

if TYPE_CHECKING:
    from m1train.checkpoints.files import Loaded, State

log = logging.getLogger(__name__)

_PROGRESS_INTERVAL_S = 0.1
# What a recipe's initialisation may look at: enough for the statistics of small patches.
_INITIAL_IMAGES = 5000
# Where a recipe's model computes, and torch with it.
_WITH_THE_MODEL = {"m1train.engine.memory", "m1train.engine.steps", "m1train.engine.evaluation"}
# In a fingerprint, these tell nothing where one side lacks them: checkpoints of earlier versions do.
_NAMES = ("processor", "gpu")
# Settings that say what is recorded and stored, not what is trained.
_WITHOUT_EFFECT_ON_BITS = ("metrics_every", "checkpoint_every_epochs", "checkpoint_every_s", "keep_checkpoints")


def run_attempt(directory: Path, spec: Spec, writer: JournalWriter) -> Exited:
    """Train until the job is done or this process shall go; the result is journalled and returned."""
    control, journal, position = Control(directory), Journal(writer), Position()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: control.terminate())
    try:
        _attempt(directory, spec, journal, control, position)
        exited = Exited("succeeded")
    except Leave as leave:
        exited = Exited(leave.outcome)
    except BaseException as error:  # noqa: BLE001 - the last one that can say what happened
        exited = _failure(error, directory, spec)
    exited = replace(exited, step=position.step)
    log.info("%s%s", exited.outcome, f": {exited.message}" if exited.message else "")
    reach("before.exited")
    journal.leave(exited, stay=control.stay)
    return exited


def _failure(error: BaseException, directory: Path, spec: Spec) -> Exited:
    own = OwnFile(recipe_path(directory), spec.recipe_file.name) if spec.recipe_file else None
    if isinstance(error, M1Error) and not (own and own.line(error)):
        return Exited("failed", error.reason.value, error.message, error.hint)
    log.error("%s", "".join(traceback.format_exception(error)))
    if out_of_space(error):
        return Exited("failed", Reason.DISK_FULL, f"the disk is full ({error})", "free some space and retry the job")
    said = last_line(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate" in said:
        hint = "take a smaller batch_size, or close something large"
        return Exited("failed", Reason.OUT_OF_MEMORY, f"the memory did not suffice ({said})", hint)
    hint = "the job's log has the whole traceback"
    if own and (own.line(error) or _refused_by_torch(error, spec.profile)):
        failed = own.bad(said, hint, own.line(error))
        return Exited("failed", failed.reason.value, failed.message, hint)
    where = traceback.extract_tb(error.__traceback__)[-1]
    return Exited("failed", Reason.INTERNAL, f"{said} ({Path(where.filename).name}:{where.lineno})", hint)


def _refused_by_torch(error: BaseException, profile: Profile) -> bool:
    """Whether torch refused in a step or an evaluation what it was given: the recipe's model, loss or optimizer.

    A RuntimeError may also be an accelerator's or the compiler's, which another attempt may get over.
    """
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not modules[-1].startswith("torch.") or not _WITH_THE_MODEL.intersection(modules) or isinstance(error, OSError):
        return False
    return not isinstance(error, RuntimeError) or (profile.device == "cpu" and not profile.compile)


def _attempt(directory: Path, spec: Spec, journal: Journal, control: Control, position: Position) -> None:
    try:
        import torch
    except ImportError as error:
        journal.append(Started(os.getpid(), None))
        message = f"torch cannot be imported ({error})"
        raise M1Error(Reason.TORCH_MISSING, message, "pip install 'm1d[daemon]'") from error
    from m1train.checkpoints import files as checkpoint
    from m1train.checkpoints.snapshot import restore
    from m1train.checkpoints.writer import CheckpointWriter, announcement
    from m1train.engine import device
    from m1train.engine.batches import Batches
    from m1train.engine.loop import Loop
    from m1train.engine.memory import check_batch

    declared = recipes.declaration_of_job(directory, spec)
    if declared.measures or spec.purpose == "tune":
        journal.append(Started(os.getpid(), None))
        measured = recipes.load(declared, spec.settings)
        device.set_up(spec.profile)
        if spec.purpose == "tune":
            from m1train.tuning.tuning import Tuning

            measured = Tuning(measured, spec.profile, spec.fixed)
        measured.measure(Desk(spec.profile, control, journal))
        return
    checkpoints_path(directory).mkdir(mode=0o700, exist_ok=True)
    checkpoint.remove_temporary(directory)
    loaded, damaged = _newest_checkpoint(directory)
    state = loaded.checkpoint.state if loaded else None
    journal.append(Started(os.getpid(), state.step if state else None))
    for step, problem in damaged:
        name = checkpoint.set_aside(directory, step)
        _notice(journal, "warning", f"the checkpoint of step {step} is damaged ({problem}) and was set aside as {name}")
        journal.append(CheckpointRemoved(step))
    if spec.seeded and not loaded:
        message = "; ".join(problem for _, problem in damaged) or "it is gone"
        raise M1Error(
            Reason.BAD_CHECKPOINT,
            f"the checkpoint that the job was to begin with cannot be used ({message})",
            "submit it again with another one",
        )
    if loaded:
        # Said again: its writer may have been killed before it could say it.
        # It is of the very step where the training stands: whatever was asked for until now, this one serves.
        position.request = control.look().checkpoint
        journal.append(announcement(loaded.checkpoint, position.request))

    recipe = recipes.load(declared, spec.settings)
    place = device.set_up(spec.profile)
    if place.notice:
        _notice(journal, "warning", place.notice)
    dataset = _dataset(spec, journal, control)
    config = recipe.config
    training, validation = _split(dataset, config, journal)
    batches = Batches(dataset.train, training, config.batch_size, config.seed)
    with initial_weights(config.seed):
        model = recipe.model(len(dataset.manifest.classes))
    model = place.model(model)
    if state is None:
        recipe.initialise(model, torch.from_numpy(dataset.train.images[training[:_INITIAL_IMAGES]]))
    optimizer = place.optimizer(recipe.optimizer(model))
    check_batch(recipe, place, model, optimizer, dataset.train, len(training))
    fingerprint = device.fingerprint(spec.profile) | _content_fingerprint(declared, config, dataset)
    origin = checkpoint.Origin(spec.job_id, spec.recipe, spec.data, asdict(config), asdict(spec.profile))
    approximate: list[str] = []
    if loaded and state:
        try:
            restore(model, optimizer, loaded.weights, loaded.optimizer)
        except checkpoint.BadCheckpointError as error:
            message = f"the checkpoint of step {state.step} does not fit this job: {error}"
            hint = f"remove {checkpoint_path(directory, state.step)}, or submit the job anew"
            raise M1Error(Reason.BAD_CHECKPOINT, message, hint) from error
        differing = _differing(state, fingerprint, origin.settings)
        approximate = [*state.approximate, *(words for words in differing if words not in state.approximate)]
        if approximate:
            log.warning("from step %d on approximate, not bit for bit: %s", state.step, "; ".join(approximate))
            journal.append(Approximate(approximate))
        position.step = state.step
        # Of a job with other batches, the epochs are others, too.
        position.validated_epochs = min(state.validated_epochs, state.step // batches.steps_per_epoch)
        position.validation = state.validation
        position.saved = (state.step, position.validated_epochs)
    resumed = loaded.checkpoint if loaded else None
    log.info(
        "%s from step %d of %d: %d training images, batches of %d, %d threads, torch %s",
        "going on" if resumed else "training",
        position.step,
        config.epochs * batches.steps_per_epoch,
        len(training),
        config.batch_size,
        spec.profile.threads,
        torch.__version__,
    )
    del loaded
    writer = CheckpointWriter(directory, journal, config.keep_checkpoints, resumed)
    loop = Loop(
        recipe,
        place,
        model,
        optimizer,
        dataset,
        batches,
        validation,
        position,
        fingerprint,
        approximate,
        origin,
        control,
        journal,
        writer,
    )
    try:
        loop.run()
    finally:
        writer.close()


def _newest_checkpoint(directory: Path) -> tuple[Loaded | None, list[tuple[int, str]]]:
    """The newest good checkpoint, and the damaged ones that are newer."""
    from m1train.checkpoints.files import newest_good

    damaged: list[tuple[int, str]] = []
    for found in newest_good(directory):
        if not isinstance(found, tuple):
            return found, damaged
        damaged.append((found[0], str(found[1])))
    return None, damaged


def _dataset(spec: Spec, journal: Journal, control: Control) -> Dataset:
    """The job's data set, read into the cache first where that is needed."""
    began = time.monotonic()

    def say(phase: str, done: int, total: int) -> None:
        journal.append(Phase(f"{phase} data", done, total))

    def heed() -> Want:
        if (want := control.look().want) in (Want.STOP, Want.YIELD):
            raise Leave("stopped" if want is Want.STOP else "yielded")
        return want

    def wait_while_held() -> None:
        while heed() is Want.HOLD:
            control.rest()

    journal.append(Phase("read data"))
    dataset = open_dataset(prepare(Path(spec.data_root), spec.data, throttled(say, wait_while_held)))
    heed()  # but to hold is the loop's: from there on the daemon is told
    log.info(
        "data %s: %d training and %d test images of %d classes (%.1f s)",
        dataset.manifest.source,
        dataset.manifest.train_images,
        dataset.manifest.test_images,
        len(dataset.manifest.classes),
        time.monotonic() - began,
    )
    return dataset


def throttled(
    say: Callable[[str, int, int], None], heed: Callable[[], None] = lambda: None
) -> Callable[[str, int, int], None]:
    """A progress that says the first, the last, and about ten a second in between; `heed` is called each time."""
    last = [-1.0]

    def progress(phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - last[0] >= _PROGRESS_INTERVAL_S or done == total:
            last[0] = now
            say(phase, done, total)
            heed()

    return progress


def _split(dataset: Dataset, config: TrainingConfig, journal: Journal) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which training images train and which validate."""
    labels = dataset.train.labels
    held_out = min(config.val_images, len(labels) // 10)
    if held_out < config.val_images:
        _notice(
            journal,
            "info",
            f"{held_out} of the {len(labels)} training images are held out for validation, "
            f"a tenth, and not val_images={config.val_images}",
        )
    training, validation = validation_split(config.seed, labels, held_out)
    if len(training) < 2:
        raise bad_data(dataset.manifest.source, f"has {len(training)} training images", "two are needed at least")
    return training, validation


def _content_fingerprint(declared: Declaration, config: TrainingConfig, dataset: Dataset) -> dict[str, str]:
    settings = {key: value for key, value in asdict(config).items() if key not in _WITHOUT_EFFECT_ON_BITS}
    text = json.dumps(settings, sort_keys=True)
    return {
        "recipe": declared.identity or declared.name,
        "settings": hashlib.sha256(text.encode()).hexdigest(),
        "data": dataset.content_sha256,
    }


def _differing(before: State, now: Mapping[str, str | int], settings: Mapping[str, Value]) -> list[str]:
    """Why the resumed training may not be the one that was begun, bit for bit: "threads was 1, is 2"."""
    old, new = dict[str, object](before.fingerprint), dict[str, object](now)
    for side, other in ((old, new), (new, old)):
        for key in _NAMES:
            if key not in other:
                side.pop(key, None)
    if before.job and old.get("settings") != new.get("settings"):
        # Both in full: the names say more than a hash.
        for side, values in ((old, before.job.settings), (new, settings)):
            del side["settings"]
            side.update({key: value for key, value in values.items() if key not in _WITHOUT_EFFECT_ON_BITS})
    differing = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    words = [f"{key} was {_short(old.get(key))}, is {_short(new.get(key))}" for key in differing]
    unproven = [f"a resume on {now['device']} is not proven exact"] if now["device"] != "cpu" else []
    return words + unproven


def _short(value: object) -> str:
    text = "unknown" if value is None else str(value)
    return re.sub("[0-9a-f]{64}", lambda sha256: sha256[0][:12], text)  # as people write a SHA-256


def _notice(journal: Journal, severity: Literal["info", "warning"], message: str) -> None:
    log.info("%s", message)
    journal.append(Notice(severity, message))
