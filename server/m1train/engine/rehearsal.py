"""The first steps of a recipe, before anything is queued: on a few random images, as the engine does it.

A model for ten classes is built, learns from two images, is evaluated on them, and what a checkpoint holds is taken
from it. It goes on for another step; and so does what a resume makes of the checkpoint: a new recipe, model and
optimizer, without `initialise`. Both must come to the same bits. In float32, on the CPU: how the machine runs it later
makes no difference here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from m1.errors import M1Error
from m1.jobdir import Profile
from m1.settings import check
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from m1train.checkpoints.files import Tensors
from m1train.checkpoints.snapshot import Snapshot, restore
from m1train.checkpoints.tensor_file import NAMES
from m1train.engine import device
from m1train.engine.device import Device
from m1train.randomness import Draw, Stream, initial_weights, set_generators
from m1train.recipe import AnyRecipe, Moment
from m1train.task.settings import Config, TrainingConfig, declared

_CLASSES = 10
_BATCH = 2
# What `initialise` may look at: enough for the statistics of small patches.
_IMAGES = 64
# Steps that no training has: what the global generators are set to outside of a step, another one each time.
_OUTSIDE = range(2**40, 2**40 + 5)
_PUT_IT_RIGHT = "put it right and submit it again"
_EXACTLY = (
    "take all that is random before the model from `draw`, and keep what changes in the model's parameters and buffers "
    "or in the optimizer's `state`: a checkpoint holds nothing else, and a resume does not call `initialise`"
)


class UnfitError(Exception):
    """What a recipe gives is not what the engine takes: the method, the setting or the class, and the way out."""

    def __init__(self, where: str, problem: str, hint: str = _PUT_IT_RIGHT) -> None:
        super().__init__(problem)
        self.where = where
        self.hint = hint


def rehearse(recipe: type[AnyRecipe], config: Config, tried: Callable[[str], AbstractContextManager[object]]) -> None:
    """Train two steps and evaluate; resume after the first one, and come to the same.

    Args:
        recipe: The class.
        config: What it is made with.
        tried: What to enter for each part, by what is to be said when the recipe raises in it ("... fails"). An
            UnfitError comes through it, too: something gave what the engine does not take.
    """
    name, outside = recipe.__name__, iter(_OUTSIDE)

    def without_generators() -> None:
        """What is drawn from the global generators from here on to the next step is never the same again."""
        set_generators(0, next(outside))

    with tried(f"the first step of {name} fails"):
        training = _Training.of(recipe(config), resumes=False)
        training.step(0)
        training.evaluate()
        saved = _saved(training)
    with tried(f"the second step of {name} fails"):
        without_generators()
        training.step(1)
        expected = _digests(training)
        without_generators()
        logits = _digest(training.evaluate())
    del training
    with tried(f"the first step of {name} after a resume, which does not call initialise, fails"):
        without_generators()
        training = _Training.of(recipe(config), resumes=True)
        restore(training.model, training.optimizer, *saved)
        del saved
        without_generators()
        training.step(1)
        found = _digests(training)
        differing = [key for key in expected | found if expected.get(key) != found.get(key)]
        if differing:
            problem = f"{name} does not resume exactly: one step later {differing[0]} is not what it is without a pause"
            raise UnfitError(name, problem, _EXACTLY)
        without_generators()
        if _digest(training.evaluate()) != logits:
            problem = f"{name} does not resume exactly: an evaluation gives other logits than without a pause"
            raise UnfitError(name, problem, f"nothing may be random in an evaluation; {_EXACTLY}")


@dataclass(frozen=True)
class _Training:
    recipe: AnyRecipe
    place: Device
    model: nn.Module
    optimizer: Optimizer
    images: Tensor

    @classmethod
    def of(cls, recipe: AnyRecipe, resumes: bool) -> _Training:
        """A training as an attempt makes it; one that resumes is yet to be restored."""
        _check_settings(recipe.config)
        place, seed = device.place(Profile()), recipe.config.seed
        draw = Draw(seed, 0, np.arange(_IMAGES, dtype=np.uint64))
        pixels = draw.uniforms(Stream.AUGMENTATION, 32 * 32 * 3) * 256
        images = torch.from_numpy(pixels.astype(np.uint8).reshape(_IMAGES, 32, 32, 3))
        with initial_weights(seed):
            model = recipe.model(_CLASSES)
        _check("model", isinstance(model, nn.Module), f"gives {_called(model)} and not a torch.nn.Module")
        model = place.model(model)
        if not resumes:
            recipe.initialise(model, images)
        optimizer = recipe.optimizer(model)
        _check("optimizer", isinstance(optimizer, Optimizer), f"gives {_called(optimizer)} and not a torch Optimizer")
        known = {id(parameter) for parameter in model.parameters()}
        strange = any(id(p) not in known for group in optimizer.param_groups for p in group["params"])
        _check("optimizer", not strange, "gives an optimizer of parameters that the model has not")
        return cls(recipe, place, model, place.optimizer(optimizer), images)

    def step(self, number: int) -> None:
        """Train one step, counted from 0: each in an epoch of its own, where there are two."""
        recipe, model, optimizer = self.recipe, self.model, self.optimizer
        moment = Moment(number, 1 if recipe.config.epochs > 1 else 2, recipe.config.epochs)
        samples = np.arange(_BATCH, dtype=np.uint64) + np.uint64(number * _BATCH)
        draw = Draw(recipe.config.seed, moment.epoch, samples)
        batch, labels = self.images[number * _BATCH :][:_BATCH], torch.arange(_BATCH)
        inputs = self.place.inputs(recipe.training_inputs(batch, draw))
        set_generators(recipe.config.seed, number)
        logits = recipe.training_logits(model, inputs, draw)
        _check_logits("training_logits", logits)
        loss = recipe.loss(logits, labels)
        scalar = isinstance(loss, Tensor) and loss.ndim == 0
        _check("loss", scalar, f"gives {_called(loss)} and not a tensor with one number, the mean over the batch")
        _check("loss", loss.requires_grad, "gives a number that does not depend on any parameter that is trained")
        loss.backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_([p for p in model.parameters() if p.requires_grad], recipe.clip_norm)
        recipe.set_rates(optimizer, moment)
        optimizer.step()
        optimizer.zero_grad()

    def evaluate(self) -> Tensor:
        """The logits of the first images."""
        self.model.eval()
        with torch.inference_mode():
            inputs = self.place.inputs(self.recipe.evaluation_inputs(self.images[:_BATCH]))
            logits = self.recipe.evaluation_logits(self.model, inputs)
            _check_logits("evaluation_logits", logits)
            self.recipe.loss(logits, torch.arange(_BATCH))
        self.model.train()
        return logits


def _check_settings(config: TrainingConfig) -> None:
    """Refuse what the engine cannot take of its own settings: a recipe may have declared them anew."""
    for setting in declared(TrainingConfig):
        value = getattr(config, setting.name)
        try:
            check(setting, value)
        except M1Error as error:
            problem = f"{error.message} for the engine, whatever the recipe declares"
            raise UnfitError(setting.name, problem, error.hint) from error
        right = isinstance(value, int) or (setting.kind == "float" and isinstance(value, float))
        _check(setting.name, right, f"is {value!r}, of the type {type(value).__name__}, and not of the type int")


def _check_logits(method: str, logits: object) -> None:
    right = isinstance(logits, Tensor) and list(logits.shape) == [_BATCH, _CLASSES]
    problem = f"gives {_called(logits)} for {_BATCH} images of {_CLASSES} classes, and not [{_BATCH}, {_CLASSES}]"
    _check(method, right, problem)


def _saved(training: _Training) -> tuple[Tensors, Tensors]:
    """What a checkpoint would hold; refused is what it cannot hold."""
    model, optimizer = training.model, training.optimizer
    for name, value in model.state_dict().items():
        _check("model", isinstance(value, Tensor), f'keeps "{name}", {_called(value)}: no checkpoint can hold it')
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


def _digests(training: _Training) -> dict[str, bytes]:
    """A hash of each tensor, by what to call it; also of the buffers that no checkpoint has."""
    weights, moments = Snapshot(training.model, training.optimizer).tensors()
    buffers = dict(training.model.named_buffers())
    named = {f'"{name}"': tensor for name, tensor in (weights | buffers).items()}
    named |= {f'the optimizer\'s "{name}"': tensor for name, tensor in moments.items()}
    return {name: _digest(tensor) for name, tensor in named.items()}


def _digest(tensor: Tensor) -> bytes:
    """A hash of the bits: what is not a number equals itself."""
    content = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(content.numpy().data).digest()


def _check(method: str, right: bool, problem: str) -> None:
    if not right:
        raise UnfitError(method, f"{method} {problem}")


def _called(value: object) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"
