"""An estimate of whether a batch fits into the memory, made before the first step: a machine that swaps helps nobody.

What a step needs besides the weights is the gradients, the optimizer's state, and what the forward pass saves for the
backward pass, which grows with the batch: measured on a copy of the model with two and with four samples.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import torch
from m1.cgroup import memory_limit
from m1.errors import M1Error, Reason, last_line
from m1.units import format_bytes
from torch import Tensor
from torch.optim import Optimizer

from m1train.engine.batches import Drawn, raw_batch
from m1train.engine.training import Training
from m1train.randomness import Draw
from m1train.task.recipe import Samples

log = logging.getLogger(__name__)

# A step's peak above what is saved: the gradients of the activations, the augmentation and the kernels' own buffers.
# On `cifar` it was 1.08 to 1.12 (torch 2.14, 2 threads, float32 and bfloat16, batches of 128, 512 and 2048).
_PEAK = 1.15


def check_batch(training: Training, samples: Samples, n_training: int) -> None:
    """Refuse a batch size with which a step would not fit; a batch has no more than all training samples.

    A model that cannot be copied is not estimated.

    Raises:
        M1Error: TOO_LARGE, with the estimate and the largest batch that fits.
    """
    if training.device.device.type == "cuda":
        return  # it has a memory of its own, and fails in time when that is full
    available = available_bytes()
    try:
        copied = copy.deepcopy(training.model)
    except Exception as error:  # noqa: BLE001 - a model's own code, or torch's: old weight_norm refuses by RuntimeError
        log.warning(
            "what a step needs of the memory is not estimated: the model cannot be copied (%s)", last_line(error)
        )
        return
    eager = replace(training.device, profile=replace(training.device.profile, compile=False))
    copy_of_it = Training(training.task, eager, copied, training.optimizer)
    per_sample, fixed = needed_bytes(copy_of_it, samples)
    batch_size: int = training.task.config.batch_size
    estimate = fixed + min(batch_size, n_training) * per_sample
    if estimate <= available:
        return
    fits = int((available - fixed) // per_sample)
    least = max(1, training.task.least_batch)
    raise M1Error(
        Reason.TOO_LARGE,
        f"a step with batch_size={batch_size} needs about {format_bytes(estimate)} of memory, "
        f"and {format_bytes(available)} are available",
        f"up to about batch_size={fits} fits" if fits >= least else "close something large, or take a smaller model",
        field="settings.batch_size",
        value=str(batch_size),
    )


def available_bytes(root: Path = Path("/")) -> int:
    """Tell how much memory can still be taken: what the machine has, or less where a control group is tighter."""
    machine: int = psutil.virtual_memory().available
    allowed = memory_limit(root).available
    return machine if allowed is None else min(machine, allowed)


def needed_bytes(training: Training, samples: Samples) -> tuple[int, int]:
    """Estimate what a step needs for each sample of its batch, and besides, without what is allocated already.

    The training's model is a copy of the one that is trained: its forward pass may change it.
    """
    more = min(4, len(samples))
    few = max(1, more // 2)
    if more == few:
        saved = {few: _saved_bytes(training, samples, few), 0: 0}
        few, more = 0, few
    else:
        saved = {n: _saved_bytes(training, samples, n) for n in (few, more)}
    per_sample = int(_PEAK * max(1, saved[more] - saved[few]) / (more - few))
    learnt = sum(p.numel() * p.element_size() for p in training.model.parameters() if p.requires_grad)
    optimizer = training.optimizer
    return per_sample, learnt + max(0, learnt * _moments(optimizer.defaults) - _state_bytes(optimizer))


def _saved_bytes(training: Training, samples: Samples, n: int) -> int:
    """Count what the forward pass of n samples keeps for the backward pass; of tensors that share their memory, one."""
    storages: dict[int, int] = {}
    kept: list[Tensor] = []  # an address may be used again once its tensor is gone

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        kept.append(tensor)
        return tensor

    # Of the last epoch: what a recipe makes of a sample may grow, and hardly ever shrinks.
    config, chosen = training.task.config, np.arange(n, dtype=np.int64)
    draw = Draw(config.seed, config.epochs - 1, chosen.astype(np.uint64))
    drawn = training.training_batch(Drawn(raw_batch(samples, chosen, draw), draw))
    batch = training.device.to_device(drawn.batch)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        training.loss(batch, draw)
    return sum(storages.values())


def _moments(defaults: Mapping[str, object]) -> int:
    """How many numbers an optimizer keeps for each weight, as far as its options tell: two like Adam, if not."""
    if "betas" in defaults:
        return 2
    return int(bool(defaults["momentum"])) if "momentum" in defaults else 2


def _state_bytes(optimizer: Optimizer) -> int:
    tensors = (value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor))
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
