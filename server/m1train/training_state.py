"""The tensors of a training, out of the model and the optimizer and back into them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from m1train.checkpoint import BadCheckpointError, Tensors


def snapshot(model: nn.Module, optimizer: Optimizer) -> tuple[Tensors, Tensors]:
    """Copies of the weights (parameters and buffers) and of the optimizer's tensors; on the CPU, contiguous."""
    weights = {name: _copied(tensor) for name, tensor in model.state_dict().items()}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return weights, {
        f"{names[id(parameter)]}.{key}": _copied(tensor)
        for parameter, state in optimizer.state.items()
        for key, tensor in state.items()
    }


def restore(model: nn.Module, optimizer: Optimizer, weights: Tensors, optimizer_tensors: Tensors) -> None:
    """Put a snapshot into place, in the memory layout that the model has.

    Raises:
        BadCheckpointError: it is of another model.
    """
    present = model.state_dict()
    if set(present) != set(weights):
        raise BadCheckpointError("its weights have other names than the model's")
    for name, tensor in present.items():
        _check(name, weights[name], tensor)
        tensor.copy_(weights[name])
    parameters = dict(model.named_parameters())
    by_reference = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    for full_name, stored in optimizer_tensors.items():
        name, _, key = full_name.rpartition(".")
        if name not in parameters:
            raise BadCheckpointError(f'its optimizer knows a parameter "{name}" that the model has not')
        parameter = parameters[name]
        if stored.ndim == 0:  # a counter: beside the parameter only where the optimizer is fused
            device = parameter.device if by_reference[id(parameter)].get("fused") else torch.device("cpu")
            optimizer.state[parameter][key] = stored.to(device, copy=True)
        else:
            _check(full_name, stored, parameter)
            optimizer.state[parameter][key] = torch.empty_like(parameter, requires_grad=False).copy_(stored)


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _check(name: str, stored: Tensor, wanted: Tensor) -> None:
    if stored.shape != wanted.shape or stored.dtype != wanted.dtype:
        found, expected = f"{stored.dtype} {list(stored.shape)}", f"{wanted.dtype} {list(wanted.shape)}"
        raise BadCheckpointError(f'its tensor "{name}" is {found} and not {expected}')
