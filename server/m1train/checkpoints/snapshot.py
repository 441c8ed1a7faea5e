"""The tensors of a training, out of the model and the optimizer and back into them."""

from __future__ import annotations

import threading

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from m1train.checkpoints.files import BadCheckpointError, Tensors


class Snapshot:
    """Copies of the weights (parameters and buffers) and of the optimizer's tensors, as they are at its making.

    Between two optimizer steps nothing changes but the buffers (BatchNorm's, in the forward pass). So they are copied
    at once, and all else in a thread, beside the next forward and backward pass: call `wait` before the next optimizer
    step. Copies are in the layout of the originals; `tensors` is for the one that writes them.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        moments = {
            f"{names[id(parameter)]}.{key}": tensor
            for parameter, state in optimizer.state.items()
            for key, tensor in state.items()
        }
        weights = model.state_dict()
        buffers = {name: _copied(weights.pop(name)) for name, _ in model.named_buffers() if name in weights}
        self._copies: tuple[Tensors, Tensors] = buffers, {}
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._copy, args=(weights, moments), name="snapshot", daemon=True)
        self._thread.start()
        if any(tensor.device.type != "cpu" for tensor in weights.values()):
            self.wait()  # another device orders its work by itself, and not every one of them by threads

    def wait(self) -> None:
        """Return when the copy is whole.

        Raises:
            RuntimeError, MemoryError: there was no memory for it.
        """
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def tensors(self) -> tuple[Tensors, Tensors]:
        """The weights and the optimizer's tensors; on the CPU, contiguous."""
        self.wait()
        weights, moments = ({k: v.contiguous() for k, v in copies.items()} for copies in self._copies)
        return weights, moments

    def _copy(self, weights: Tensors, moments: Tensors) -> None:
        try:
            for copies, originals in zip(self._copies, (weights, moments), strict=True):
                for name, tensor in originals.items():
                    copies[name] = _copied(tensor)
        except BaseException as error:  # noqa: BLE001 - raised by `wait`
            self._failure = error


def restore(model: nn.Module, optimizer: Optimizer, weights: Tensors, optimizer_tensors: Tensors) -> None:
    """Put a snapshot into place, in the memory layout that the model has.

    Raises:
        BadCheckpointError: it is of another model.
    """
    restore_weights(model, weights)
    parameters = dict(model.named_parameters())
    by_reference = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    for full_name, stored in optimizer_tensors.items():
        name, _, key = full_name.rpartition(".")
        if name not in parameters:
            raise BadCheckpointError(f'its optimizer knows a parameter "{name}" that the model has not')
        parameter = parameters[name]
        if stored.ndim == 0:
            # A counter is beside the parameter only where the optimizer is fused; the moments of a scalar always are.
            counts = key == "step" or parameter.ndim > 0
            on_cpu = counts and not by_reference[id(parameter)].get("fused")
            optimizer.state[parameter][key] = stored.to("cpu" if on_cpu else parameter.device, copy=True)
        else:
            _check(full_name, stored, parameter)
            optimizer.state[parameter][key] = torch.empty_like(parameter, requires_grad=False).copy_(stored)


def restore_weights(model: nn.Module, weights: Tensors) -> None:
    """Put a snapshot's weights into place, in the memory layout that the model has.

    Raises:
        BadCheckpointError: they are of another model.
    """
    present = model.state_dict()
    if set(present) != set(weights):
        raise BadCheckpointError("its weights have other names than the model's")
    for name, tensor in present.items():
        _check(name, weights[name], tensor)
        tensor.copy_(weights[name])


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)


def _check(name: str, stored: Tensor, wanted: Tensor) -> None:
    if stored.shape != wanted.shape or stored.dtype != wanted.dtype:
        found, expected = f"{stored.dtype} {list(stored.shape)}", f"{wanted.dtype} {list(wanted.shape)}"
        raise BadCheckpointError(f'its tensor "{name}" is {found} and not {expected}')
