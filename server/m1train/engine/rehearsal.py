"""The first steps of a recipe, before anything is queued: on a few random samples, as the engine does it.

A model is built, learns from two samples, is judged on them, and what a checkpoint holds is taken from it. It goes on
for another step; and so does what a resume makes of the checkpoint: a new recipe, model and optimizer, without
`initialise`. Both must come to the same bits. In float32, on the CPU: how the machine runs it later makes no difference
here.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from m1.errors import M1Error
from m1.jobdir import Profile
from m1.metrics import headline
from m1.settings import check
from torch import Tensor, nn
from torch.optim import Optimizer

from m1train.checkpoints.files import Tensors
from m1train.checkpoints.snapshot import Snapshot, restore
from m1train.checkpoints.tensor_file import NAMES
from m1train.engine import device
from m1train.engine.batches import Drawn, raw_batch
from m1train.engine.training import Stepped, Training
from m1train.job.results import encoded
from m1train.randomness import Draw, initial_weights, set_generators
from m1train.task.recipe import AnyTask, DataInfo, Moment, Picture, Samples, Table, Task, Text, UnfitError, called
from m1train.task.settings import Config, declared

_BATCH = 2
# What `fit_network` may look at.
_FIT_SAMPLES = 64
# Steps that no training has: what the global generators are set to outside of a step, another one each time.
_OUTSIDE = range(2**40, 2**40 + 5)
_EXACTLY = (
    "take all that is random before the model from `draw`, and keep what changes in the model's parameters and buffers "
    "or in the optimizer's `state`: a checkpoint holds nothing else, and a resume does not call `initialise`"
)


def rehearse(
    recipe: type[AnyTask],
    config: Config,
    material: Callable[[AnyTask], tuple[DataInfo, Samples]],
    tried: Callable[[str], AbstractContextManager[object]],
) -> None:
    """Train two steps and evaluate; resume after the first one, and come to the same.

    Args:
        recipe: The class.
        config: What it is made with.
        material: Gives what the model may know of its data, and samples of them.
        tried: What to enter for each part, by what is to be said when the recipe raises in it ("... fails"). An
            UnfitError comes through it, too: something gave what the engine does not take.
    """
    name, outside = recipe.__name__, iter(_OUTSIDE)

    def without_generators() -> None:
        """What is drawn from the global generators from here on to the next step is never the same again."""
        set_generators(0, next(outside))

    with tried(f"the first step of {name} fails"):
        training = _Rehearsal.of(recipe(config), material, resumes=False)
        training.step(0)
        training.evaluate()
        saved = _saved(training)
    with tried(f"the second step of {name} fails"):
        without_generators()
        training.step(1)
        expected = _digests(training)
        without_generators()
        judged = training.evaluate()
    del training
    with tried(f"the first step of {name} after a resume, which does not call initialise, fails"):
        without_generators()
        training = _Rehearsal.of(recipe(config), material, resumes=True)
        restore(training.training.model, training.training.optimizer, *saved)
        del saved
        without_generators()
        training.step(1)
        found = _digests(training)
        differing = [key for key in expected | found if expected.get(key) != found.get(key)]
        if differing:
            problem = f"{name} does not resume exactly: one step later {differing[0]} is not what it is without a pause"
            raise UnfitError(name, problem, _EXACTLY)
        without_generators()
        if training.evaluate() != judged:
            problem = f"{name} does not resume exactly: an evaluation gives another result than without a pause"
            raise UnfitError(name, problem, f"nothing may be random in an evaluation; {_EXACTLY}")


@dataclass(frozen=True)
class _Rehearsal:
    training: Training
    info: DataInfo
    samples: Samples

    @classmethod
    def of(cls, task: AnyTask, material: Callable[[AnyTask], tuple[DataInfo, Samples]], resumes: bool) -> _Rehearsal:
        """Assemble a training as an attempt does; one that resumes is yet to be restored."""
        _check_settings(task)
        info, samples = material(task)
        if not _is_plain(info.facts):
            problem = "facts gives what JSON does not hold as it is, and a checkpoint keeps it so"
            raise UnfitError("facts", problem, "give numbers, texts, lists, and mappings by text")
        least = _BATCH * 2
        if len(samples) < least:
            where = "samples" if type(task).read is Task.read else "read"
            raise UnfitError(
                where, f"its data give {len(samples)} samples to train on", f"{least} are needed to try it"
            )
        of_network = _name_of(task, "network")
        with initial_weights(task.config.seed):
            model = task.network(info)
        _check(of_network, isinstance(model, nn.Module), f"gives {called(model)} and not a torch.nn.Module")
        at = device.place(Profile())
        model = at.prepare_model(model)
        if task.fit_samples and not resumes:
            chosen = np.arange(min(_FIT_SAMPLES, len(samples)), dtype=np.int64)
            task.fit_network(model, raw_batch(samples, chosen, None))
        optimizer = task.optimizer(model)
        _check("optimizer", isinstance(optimizer, Optimizer), f"gives {called(optimizer)} and not a torch Optimizer")
        known = {id(parameter) for parameter in model.parameters()}
        strange = any(id(p) not in known for group in optimizer.param_groups for p in group["params"])
        _check("optimizer", not strange, "gives an optimizer of parameters that the model has not")
        return cls(Training(task, at, model, at.prepare_optimizer(optimizer)), info, samples)

    def step(self, number: int) -> None:
        """Train one step, counted from 0: each in an epoch of its own, where there are two."""
        config = self.training.task.config
        moment = Moment(number, 1 if config.epochs > 1 else 2, config.epochs)
        chosen = np.arange(_BATCH, dtype=np.int64) + number * _BATCH
        draw = Draw(config.seed, moment.epoch, chosen.astype(np.uint64))

        training = self.training
        drawn = training.training_batch(Drawn(raw_batch(self.samples, chosen, draw), draw))
        batch = training.device.to_device(drawn.batch)
        set_generators(config.seed, number)
        where = _name_of(training.task, "training_loss")
        found = training.loss(batch, draw)
        is_pair = isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping)
        _check(where, is_pair, "does not give the loss and a mapping of other metrics (it may be empty)")
        loss, measured = found
        scalar = isinstance(loss, Tensor) and loss.ndim == 0
        _check(where, scalar, f"gives {called(loss)} and not a tensor with one number, the mean over the batch")
        _check(where, loss.requires_grad, "gives a number that does not depend on any parameter that is trained")
        norm = training.backward(loss)
        training.update(moment)
        known = {metric.key for metric in training.task.metrics}
        for key in measured:
            _check(where, key in known, f'measures "{key}", which is none of its declared metrics')
        _check_numbers(where, measured)
        for group in training.optimizer.param_groups:
            lr = group["lr"]
            _check("rate", _is_finite(lr), f"makes the learning rate {lr}, which is not a finite number")
        # As the journal writes them.
        json.dumps(Stepped(loss.item(), norm.item(), training.optimizer.param_groups[0]["lr"], measured).metrics())

    def evaluate(self) -> bytes:
        """Judge the model on the first samples, and hash what comes of it."""
        task = self.training.task
        evaluation = task.evaluation(self.info, "test")
        missing = [name for name in ("add", "metrics", "results") if not callable(getattr(evaluation, name, None))]
        _check("evaluation", not missing, f"gives {called(evaluation)} without {' and '.join(missing)}")
        self.training.evaluate(self.samples, np.arange(_BATCH, dtype=np.int64), evaluation)
        with self.training.judging():
            made = evaluation.results(self.training.model)
            right = isinstance(made, Sequence) and all(isinstance(result, Table | Text | Picture) for result in made)
            _check("evaluation", right, "gives results that are not a list of Table, Text and Picture")
            results = [encoded(result)[0] for result in made]
        measured = evaluation.metrics()
        _check(
            "evaluation", isinstance(measured, Mapping), f"gives {called(measured)} for its metrics and not a mapping"
        )
        _check_numbers("evaluation", measured)
        metrics = {key: float(value) for key, value in measured.items()}
        for key in ("loss", headline(task.metrics).key):
            _check("evaluation", key in metrics, f'measures no "{key}"')
        known = {"loss", *(metric.key for metric in task.metrics)}
        for key in metrics:
            _check("evaluation", key in known, f'measures "{key}", which is none of its declared metrics')
        return hashlib.sha256(json.dumps(metrics).encode() + b"".join(results)).digest()


def _check_settings(task: AnyTask) -> None:
    """Refuse what the engine cannot take of its own settings: a recipe may have declared them anew."""
    for setting in declared(task.base_config):
        value = getattr(task.config, setting.name)
        try:
            check(setting, value)
        except M1Error as error:
            problem = f"{error.message} for the engine, whatever the recipe declares"
            raise UnfitError(setting.name, problem, error.hint) from error
        right = isinstance(value, int) or (setting.kind == "float" and isinstance(value, float))
        _check(setting.name, right, f"is {value!r}, of the type {type(value).__name__}, and not of the type int")


def _saved(rehearsal: _Rehearsal) -> tuple[Tensors, Tensors]:
    """What a checkpoint would hold; refused is what it cannot hold."""
    model, optimizer = rehearsal.training.model, rehearsal.training.optimizer
    for name, value in model.state_dict().items():
        _check("model", isinstance(value, Tensor), f'keeps "{name}", {called(value)}: no checkpoint can hold it')
    plain = all(isinstance(value, Tensor) for state in optimizer.state.values() for value in state.values())
    _check("optimizer", plain, "gives an optimizer with a state that is not of tensors: no checkpoint can hold it")
    saved = Snapshot(model, optimizer).tensors()
    for method, tensors in zip(("model", "optimizer"), saved, strict=True):
        for name, tensor in tensors.items():
            if tensor.dtype not in NAMES:
                raise UnfitError(
                    method,
                    f'{method} keeps "{name}" as {tensor.dtype}: no checkpoint can hold it',
                    "keep it in another dtype (torch.view_as_real for a complex one), "
                    "or a buffer that never changes with persistent=False",
                )
    return saved


def _digests(rehearsal: _Rehearsal) -> dict[str, bytes]:
    """A hash of each tensor, by what to call it; also of the buffers that no checkpoint has."""
    training = rehearsal.training
    weights, moments = Snapshot(training.model, training.optimizer).tensors()
    buffers = dict(training.model.named_buffers())
    named = {f'"{name}"': tensor for name, tensor in (weights | buffers).items()}
    named |= {f'the optimizer\'s "{name}"': tensor for name, tensor in moments.items()}
    return {name: _digest(tensor) for name, tensor in named.items()}


def _digest(tensor: Tensor) -> bytes:
    """A hash of the bits: what is not a number equals itself."""
    content = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(content.numpy().data).digest()


def _name_of(task: AnyTask, method: str) -> str:
    """What a recipe's author calls a method: that of the short form, unless the recipe has the method itself."""
    return method if method in vars(type(task)) else task.own_names.get(method, method)


def _check_numbers(method: str, measured: Mapping[str, object]) -> None:
    for key, value in measured.items():
        _check(method, _is_number(value), f'measures "{key}" as {called(value)} and not as one number')


def _is_number(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex()
    return isinstance(value, int | float | np.number)


def _is_finite(value: object) -> bool:
    return _is_number(value) and math.isfinite(float(value))  # type: ignore[arg-type]  # it is a number


def _is_plain(value: object) -> bool:
    """Return True for what JSON gives back as it was."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(inner) for inner in value)
    return value is None or type(value) in (str, int, float, bool)


def _check(method: str, right: bool, problem: str) -> None:
    if not right:
        raise UnfitError(method, f"{method} {problem}")
