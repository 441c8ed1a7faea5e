"""Whether a batch fits into the memory, estimated before the first step: a machine that swaps helps nobody.

What a step needs besides the weights is the gradients, the optimizer's state, and what the forward pass saves for the
backward pass, which grows with the batch: measured on a copy of the model with two and with four images.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping

import numpy as np
import psutil
import torch
from m1.errors import M1Error, Reason
from m1.units import format_bytes
from torch import Tensor, nn
from torch.optim import Optimizer

from m1train.data.cache import Split
from m1train.engine.device import Device
from m1train.randomness import Draw
from m1train.recipe import AnyRecipe
from m1train.task.own_file import last_line

log = logging.getLogger(__name__)

# A step's peak above what is saved: the gradients of the activations, the augmentation and the kernels' own buffers.
# On `cifar` it was 1.08 to 1.12 (torch 2.14, 2 threads, float32 and bfloat16, batches of 128, 512 and 2048).
_PEAK = 1.15


def check_batch(
    recipe: AnyRecipe, place: Device, model: nn.Module, optimizer: Optimizer, split: Split, n_training: int
) -> None:
    """Refuse a batch size with which a step would not fit; a batch has no more than all training images.

    A model that cannot be copied is not estimated.

    Raises:
        M1Error: TOO_LARGE, with the estimate and the largest batch that fits.
    """
    if place.device.type == "cuda":
        return  # it has a memory of its own, and fails in time when that is full
    available = psutil.virtual_memory().available
    try:
        copied = copy.deepcopy(model)
    except Exception as error:  # noqa: BLE001 - a model's own code, or torch's: old weight_norm refuses by RuntimeError
        log.warning(
            "what a step needs of the memory is not estimated: the model cannot be copied (%s)", last_line(error)
        )
        return
    per_image, fixed = needed_bytes(recipe, place, copied, optimizer, split)
    batch_size: int = recipe.config.batch_size
    estimate = fixed + min(batch_size, n_training) * per_image
    if estimate <= available:
        return
    fits = int((available - fixed) // per_image)
    raise M1Error(
        Reason.TOO_LARGE,
        f"a step with batch_size={batch_size} needs about {format_bytes(estimate)} of memory, "
        f"and {format_bytes(available)} are available",
        f"up to about batch_size={fits} fits" if fits >= 2 else "close something large, or take a smaller model",
        field="settings.batch_size",
        value=str(batch_size),
    )


def needed_bytes(
    recipe: AnyRecipe, place: Device, model: nn.Module, optimizer: Optimizer, split: Split
) -> tuple[int, int]:
    """What a step needs for each image of its batch, and besides, without what is allocated already.

    The model is a copy of the one that is trained: its forward pass may change it.
    """
    images = min(4, len(split.images))
    few, more = images // 2, images
    saved = {n: _saved_bytes(recipe, place, model, split, n) for n in (few, more)}
    per_image = int(_PEAK * max(1, saved[more] - saved[few]) / (more - few))
    learnt = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return per_image, learnt + max(0, learnt * _moments(optimizer.defaults) - _state_bytes(optimizer))


def _saved_bytes(recipe: AnyRecipe, place: Device, model: nn.Module, split: Split, n: int) -> int:
    """What the forward pass of n images keeps for the backward pass; of tensors that share their memory, one."""
    storages: dict[int, int] = {}
    kept: list[Tensor] = []  # an address may be used again once its tensor is gone

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        kept.append(tensor)
        return tensor

    # Of the last epoch: a recipe's images may grow, and hardly ever shrink.
    draw = Draw(recipe.config.seed, recipe.config.epochs - 1, np.arange(n, dtype=np.uint64))
    inputs = place.inputs(recipe.training_inputs(torch.from_numpy(split.images[:n]), draw))
    labels = place.labels(torch.from_numpy(split.labels[:n]))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), place.autocast():
        recipe.loss(recipe.training_logits(model, inputs, draw), labels)
    return sum(storages.values())


def _moments(defaults: Mapping[str, object]) -> int:
    """How many numbers an optimizer keeps for each weight, as far as its options tell: two like Adam, if not."""
    if "betas" in defaults:
        return 2
    return int(bool(defaults["momentum"])) if "momentum" in defaults else 2


def _state_bytes(optimizer: Optimizer) -> int:
    tensors = (value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor))
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
