"""`m1train use`: answer with what a job has trained, from a checkpoint, as JSON lines. Beside whatever trains."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from m1.errors import ExitCode, M1Error, Reason, last_line
from m1.jobdir import Spec, checkpoint_path, read_spec
from m1.settings import Value, resolve

from m1train import catalogue
from m1train.task.settings import Use


def use_model(directory: str, step: int, use: str, options: str, inputs: Sequence[str], data_root: str = "") -> int:
    """Print {"row": {...}} for each answer, or {"error": {...}} at the end of them.

    `data_root` is the cache of datasets, where it is not the one that the job's spec names: in a home that was moved.
    """
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever foreign code prints goes to stderr

    def say(line: Mapping[str, Any]) -> None:
        answer.write(json.dumps(line) + "\n")
        answer.flush()

    try:
        given = json.loads(Path(options).read_bytes()) if options else {}
        spec = read_spec(Path(directory))
        spec = replace(spec, data_root=data_root) if data_root else spec
        for row in _rows(Path(directory), spec, step, use, given, [Path(path) for path in inputs]):
            say({"row": dict(row)})
    except M1Error as error:
        say({"error": {**asdict(error), "reason": error.reason.value}})
        return ExitCode.ERROR
    except Exception as error:  # noqa: BLE001 - the daemon knows of it what is said here, and nothing else
        traceback.print_exception(error)
        said = M1Error(
            Reason.INTERNAL, f"{use} failed ({last_line(error)})", "the checkpoint may be of another version"
        )
        say({"error": {**asdict(said), "reason": said.reason.value}})
        return ExitCode.ERROR
    return ExitCode.OK


def _rows(
    directory: Path, spec: Spec, step: int, use: str, given: Mapping[str, object], inputs: Sequence[Path]
) -> Iterator[Mapping[str, Value]]:
    import torch

    from m1train.checkpoints.files import BadCheckpointError, read
    from m1train.checkpoints.snapshot import restore_weights
    from m1train.engine import device
    from m1train.randomness import initial_weights

    declared = catalogue.declaration_of_job(directory, spec)
    options = resolve(_use_of(declared.uses, use, spec.recipe).options, given)
    try:
        loaded = read(checkpoint_path(directory, step))
    except BadCheckpointError as error:
        raise M1Error(Reason.BAD_CHECKPOINT, f"the checkpoint of step {step} is damaged ({error})") from error
    task = catalogue.load(declared, spec.settings)
    device.set_up(spec.profile.beside())
    with initial_weights(0):
        info = _info(spec, loaded.checkpoint.state)
        model = task.network(info)
    restore_weights(model, loaded.weights)
    del loaded
    model.eval()
    with torch.inference_mode():
        yield from task.use(use, model, info, inputs, options)


def _use_of(uses: Sequence[Use], name: str, recipe: str) -> Use:
    for use in uses:
        if use.name == name:
            return use
    known = ", ".join(use.name for use in uses) or "nothing"
    message = f'the recipe "{recipe}" has no use "{name}"'
    raise M1Error(Reason.INVALID_ARGUMENT, message, f"it has {known}", field="use", value=name)


def _info(spec: Spec, state: Any) -> Any:
    """What the model was made with: as the checkpoint says, or, where 0.1.0 wrote it, by the data in the cache."""
    from m1train.task.recipe import DataInfo

    if state.job and (state.job.columns or state.job.facts):
        facts = json.loads(state.job.facts) if state.job.facts else {}
        return DataInfo({column.name: column for column in state.job.columns}, facts)
    from m1train.data.cache import open_dataset
    from m1train.data.prepare import prepare

    return DataInfo(open_dataset(prepare(Path(spec.data_root), spec.data, lambda *_: None)).columns)
