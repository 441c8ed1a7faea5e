"""Asking what a job has trained: a process of the training package answers from a checkpoint, beside what trains.

What can be known without torch is checked first. The process has one thread and the lowest priority, and ends with the
call; it says {"row": {...}} for each answer, or {"error": {...}} (see m1train.commands.use).
"""

from __future__ import annotations

import json
import os
import signal
import stat
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from m1.errors import M1Error, Reason, nearest, shortened
from m1.limits import INPUT_BYTES, MOST_INPUTS, NAME
from m1.settings import resolve

from m1d.catalogue.recipes import UseInfo
from m1d.jobs.job import Checkpoint, Job
from m1d.jobs.states import JobState
from m1d.processes.blocking import look_at
from m1d.processes.environment import training_environment
from m1d.processes.tool import Tool, ToolResult
from m1d.verbs.find import find_checkpoint, find_job
from m1d.verbs.parts import Parts

_PAGE = 1000
# How error messages of m1.settings name a field, and how the request of a use does.
_SETTINGS, _OPTIONS = "settings.", "options."


@dataclass(frozen=True)
class Question:
    """What a model is asked, as it was checked."""

    job: Job
    checkpoint: Checkpoint
    """The one that answers."""
    use: str
    options: Mapping[str, object]
    inputs: Sequence[str]


async def make_question(
    parts: Parts, job: str, checkpoint: str, use: str, options: Mapping[str, object], inputs: Sequence[str]
) -> Question:
    """Check what is asked; without a checkpoint's id the job's best one answers, or its newest if none is the best.

    Uses of a user's own recipe are not known here: the process that answers checks them.

    Raises:
        M1Error: what is wrong, with the field and the way out.
    """
    asked, answering = _answering(parts, job, checkpoint)
    if asked.kind == "program":
        raise _not_a_recipe(asked)
    if asked.spec.recipe_file is None:
        recipe = await parts.recipes.get(asked.spec.recipe)
        _check_use(recipe.name, recipe.uses, use, options, inputs)
    elif not NAME.fullmatch(use):
        raise _no_use(asked.spec.recipe, use, "a use has a name like predict")
    await look_at(inputs[0] if inputs else "", _check_inputs, inputs)
    return Question(asked, answering, use, options, inputs)


def _answering(parts: Parts, reference: str, checkpoint: str) -> tuple[Job, Checkpoint]:
    if not checkpoint:
        job = find_job(parts, reference)
        if job.kind == "program":
            raise _not_a_recipe(job)
        return job, _chosen(parts, job)
    owner, found = find_checkpoint(parts, checkpoint)
    if reference and find_job(parts, reference).number != owner.number:
        message = f'the checkpoint {found.id} is of {owner.name}, not of "{shortened(reference)}"'
        raise M1Error(Reason.INVALID_ARGUMENT, message, "name one of them", field="checkpoint", value=checkpoint)
    return owner, found


def _chosen(parts: Parts, job: Job) -> Checkpoint:
    newest, below = None, None
    while page := parts.store.checkpoints(job.number, below=below, limit=_PAGE):
        newest = newest or page[0]
        best = next((checkpoint for checkpoint in page if checkpoint.best), None)
        if best:
            return best
        below = page[-1].step
    if newest:
        return newest
    if job.kind != "training":
        hint = f"it is a {job.kind}, and only a training makes one"
    elif job.final:
        hint = "it ended before it made one"
    elif job.state in {JobState.RUNNING, JobState.HELD}:
        hint = f"m1ctl checkpoint {job.name} makes one"
    else:
        hint = "it makes one once it trains"
    message = f"{job.id} ({job.name}) has no checkpoint that could answer"
    raise M1Error(Reason.WRONG_STATE, message, hint, field="job", value=job.id)


def _not_a_recipe(job: Job) -> M1Error:
    message = f"{job.id} ({job.name}) runs a program, and m1d does not know its model"
    hint = "m1ctl download fetches a checkpoint of its own making; m1ctl run starts what can read it"
    return M1Error(Reason.INVALID_ARGUMENT, message, hint, field="job", value=job.id)


def _check_use(
    recipe: str, uses: Sequence[UseInfo], name: str, options: Mapping[str, object], inputs: Sequence[str]
) -> None:
    use = next((use for use in uses if use.name == name), None)
    if use is None:
        hint = nearest(name, (use.name for use in uses)) if uses else "it declares none"
        raise _no_use(recipe, name, hint)
    try:
        resolve(use.options, options)
    except M1Error as error:
        raise _of_options(error) from error
    if use.inputs and not inputs:
        raise M1Error(Reason.INVALID_ARGUMENT, f"{name} takes files, and none is named", "name one", field="inputs")
    if inputs and not use.inputs:
        raise M1Error(Reason.INVALID_ARGUMENT, f"{name} takes no files", "leave them out", field="inputs")


def _no_use(recipe: str, name: str, hint: str) -> M1Error:
    message = f'the recipe "{recipe}" has no use "{shortened(name)}"'
    return M1Error(Reason.INVALID_ARGUMENT, message, hint, field="use", value=name)


def _of_options(error: M1Error) -> M1Error:
    """Say of a use's options what was said of settings: they are declared and checked alike."""
    if not error.field.startswith(_SETTINGS):
        return error
    message = error.message.replace("no setting", "no option").replace("the setting", "the option")
    return replace(error, message=message, field=_OPTIONS + error.field.removeprefix(_SETTINGS))


def _check_inputs(inputs: Sequence[str]) -> None:
    size = sum(len(os.fsencode(path)) for path in inputs)
    if len(inputs) > MOST_INPUTS or size > INPUT_BYTES:
        message = f"{len(inputs)} files with paths of {size} bytes are too many for one call"
        hint = f"ask for at most {MOST_INPUTS} files, whose paths have at most {INPUT_BYTES} bytes, at a time"
        raise M1Error(Reason.TOO_LARGE, message, hint, field="inputs")
    for path in inputs:
        _check_input(path)


def _check_input(path: str) -> None:
    shown = shortened(path)
    if not os.path.isabs(path):
        problem, hint = f'the input "{shown}" is not an absolute path', "the daemon works in another directory"
        raise M1Error(Reason.INVALID_ARGUMENT, problem, hint, field="inputs", value=path)
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        hint = "name a file on the daemon's machine"
        raise M1Error(
            Reason.FILE_NOT_FOUND, f'file "{shown}" does not exist', hint, field="inputs", value=path
        ) from error
    except (OSError, ValueError) as error:
        problem = f'file "{shown}" cannot be read ({error})'
        raise M1Error(Reason.INVALID_ARGUMENT, problem, "name another", field="inputs", value=path) from error
    if not stat.S_ISREG(mode):
        what = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise M1Error(Reason.INVALID_ARGUMENT, f'"{shown}" is {what}', "name files", field="inputs", value=path)


async def answer(parts: Parts, question: Question) -> AsyncGenerator[Mapping[str, Any]]:
    """Ask a process, and give its answers as they come; leaving the loop ends the process.

    Raises:
        M1Error: what the process says is wrong; CHECKPOINT_NOT_FOUND, when the checkpoint was removed meanwhile;
            PROCESS_DIED, when it ends by itself.
    """
    with tempfile.TemporaryDirectory(prefix="use-", dir=parts.home.cache, ignore_cleanup_errors=True) as scratch:
        options = Path(scratch, "options.json")
        options.write_text(json.dumps(question.options))
        arguments = [
            "use",
            f"--directory={parts.home.job(question.job.id)}",
            f"--step={question.checkpoint.step}",
            f"--use={question.use}",
            f"--options={options}",
            f"--data-root={parts.home.data}",
            *(f"--input={path}" for path in question.inputs),
        ]
        try:
            environment = training_environment(parts.environment, 1)
            async with Tool(arguments, environment, Path(scratch, "errors"), aside=True) as tool:
                while (row := await _row(tool, question.use)) is not None:
                    yield row
                _check_end(question.use, await tool.result())
        except M1Error as error:
            if parts.store.checkpoint(question.job.number, question.checkpoint.step) is None:
                raise M1Error(
                    Reason.CHECKPOINT_NOT_FOUND,
                    f"the checkpoint {question.checkpoint.id} was removed before {question.use} had answered",
                    "m1ctl checkpoints shows what there is",
                    field="checkpoint",
                    value=question.checkpoint.id,
                ) from error
            raise _of_options(error) from error


async def _row(tool: Tool, use: str) -> Mapping[str, Any] | None:
    """Read the next answer; None at the end of the output."""
    try:
        line = await tool.line()
        return _said(line) if line.endswith(b"\n") else None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"{use} gave an answer that cannot be understood ({type(error).__name__})"
        raise M1Error(Reason.INTERNAL, message, "see what the recipe yields") from error


def _said(line: bytes) -> Mapping[str, Any]:
    said = json.loads(line)
    if "error" in said:
        texts = (str(said["error"][name]) for name in ("message", "hint", "field", "value"))
        raise M1Error(Reason(said["error"]["reason"]), *texts)
    row: Mapping[str, Any] = said["row"]
    return row


def _check_end(use: str, result: ToolResult) -> None:
    if result.status == 0:
        return
    if result.oom:
        message = f"the process of {use} was killed for want of memory"
        raise M1Error(Reason.OUT_OF_MEMORY, message, "ask for less at a time, or close something large")
    how = signal.Signals(-result.status).name if result.status < 0 else f"exit status {result.status}"
    words = result.errors.rpartition("\n")[2] or "memory may have run out"
    raise M1Error(Reason.PROCESS_DIED, f"the process of {use} ended before it had answered ({how})", shortened(words))
