"""The first step of a recipe, before anything is queued: on a few random images, as the engine does it.

A model for ten classes is built, learns from two images, is evaluated on them, and what a checkpoint holds is taken
from it and put back. In float32, on the CPU: how the machine runs it later makes no difference here.
"""

from __future__ import annotations

import numpy as np
import torch
from m1.jobdir import Profile
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from m1train import device
from m1train.randomness import Draw, Stream, initial_weights, set_generators
from m1train.recipe import AnyRecipe, Moment
from m1train.training_state import Snapshot, restore

_CLASSES = 10
_BATCH = 2
# What `initialise` may look at: enough for the statistics of small patches.
_IMAGES = 64


class UnfitError(Exception):
    """What a method gave is not what the engine takes."""

    def __init__(self, method: str, problem: str) -> None:
        super().__init__(problem)
        self.method = method


def rehearse(recipe: AnyRecipe) -> None:
    """Train one step and evaluate.

    Raises:
        UnfitError: a method of the recipe gave what the engine does not take.
        Exception: whatever the recipe raises.
    """
    place = device.place(Profile())
    config = recipe.config
    draw = Draw(config.seed, 0, np.arange(_IMAGES, dtype=np.uint64))
    pixels = draw.uniforms(Stream.AUGMENTATION, 32 * 32 * 3) * 256
    images = torch.from_numpy(pixels.astype(np.uint8).reshape(_IMAGES, 32, 32, 3))
    batch, labels, draw = images[:_BATCH], torch.arange(_BATCH), Draw(config.seed, 0, draw.samples[:_BATCH])

    with initial_weights(config.seed):
        model = recipe.model(_CLASSES)
    _check("model", isinstance(model, nn.Module), f"gives {_called(model)} and not a torch.nn.Module")
    model = place.model(model)
    recipe.initialise(model, images)
    optimizer = recipe.optimizer(model)
    _check("optimizer", isinstance(optimizer, Optimizer), f"gives {_called(optimizer)} and not a torch Optimizer")
    known = {id(parameter) for parameter in model.parameters()}
    strange = any(id(p) not in known for group in optimizer.param_groups for p in group["params"])
    _check("optimizer", not strange, "gives an optimizer of parameters that the model has not")
    optimizer = place.optimizer(optimizer)

    inputs = place.inputs(recipe.training_inputs(batch, draw))
    set_generators(config.seed, 0)
    logits = recipe.training_logits(model, inputs, draw)
    _check_logits("training_logits", logits)
    loss = recipe.loss(logits, labels)
    scalar = isinstance(loss, Tensor) and loss.ndim == 0
    _check("loss", scalar, f"gives {_called(loss)} and not a tensor with one number, the mean over the batch")
    _check("loss", loss.requires_grad, "gives a number that does not depend on any parameter that is trained")
    loss.backward()  # type: ignore[no-untyped-call]
    clip_grad_norm_([p for p in model.parameters() if p.requires_grad], recipe.clip_norm)
    recipe.set_rates(optimizer, Moment(0, 1, config.epochs))
    optimizer.step()
    _check_state(model, optimizer)

    model.eval()
    with torch.inference_mode():
        logits = recipe.evaluation_logits(model, place.inputs(recipe.evaluation_inputs(batch)))
        _check_logits("evaluation_logits", logits)
        recipe.loss(logits, labels)


def _check_logits(method: str, logits: object) -> None:
    right = isinstance(logits, Tensor) and list(logits.shape) == [_BATCH, _CLASSES]
    problem = f"gives {_called(logits)} for {_BATCH} images of {_CLASSES} classes, and not [{_BATCH}, {_CLASSES}]"
    _check(method, right, problem)


def _check_state(model: nn.Module, optimizer: Optimizer) -> None:
    """Refuse an optimizer whose state a checkpoint cannot hold."""
    plain = all(isinstance(value, Tensor) for state in optimizer.state.values() for value in state.values())
    _check("optimizer", plain, "gives an optimizer with a state that is not of tensors: no checkpoint can hold it")
    restore(model, optimizer, *Snapshot(model, optimizer).tensors())


def _check(method: str, right: bool, problem: str) -> None:
    if not right:
        raise UnfitError(method, f"{method} {problem}")


def _called(value: object) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"
