"""Muon: momentum whose matrices are made orthogonal before they are added; Nesterov SGD for what is no filter.

The matrix products are made in bfloat16, as Jordan has it, or in float32 where the processor only emulates bfloat16:
their result is rounded to the parameter's own format, and three turns in either bring the singular values to the same
range. A group's `product_dtype` says which; the engine sets it by the profile.

Jordan and others: "Muon: an optimizer for hidden layers in neural networks", 2024. All that it remembers is one tensor
a parameter, of the parameter's shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

# Jordan's coefficients: a fifth-degree polynomial that brings every singular value near 1 in few turns.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_TURNS = 3


def orthogonalised(matrix: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Newton-Schulz: the matrix [M, N] with its singular values brought to about 0.7 to 1.2, in `dtype` inside."""
    x = matrix.to(dtype)
    x = x / (x.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    for _ in range(_TURNS):
        gram = x @ x.T
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    result: Tensor = (x.T if tall else x).to(matrix.dtype)
    return result


class Muon(Optimizer):
    """A group with `orthogonal` holds filters; before each step their norm is made the root of their number."""

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        options = {"lr": 0.0, "momentum": 0.0, "weight_decay": 0.0, "orthogonal": False}
        super().__init__(groups, {**options, "product_dtype": torch.bfloat16})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of all groups."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(group, parameter, parameter.grad)

    def _step(self, group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> None:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        if group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        momentum = state["momentum"].mul_(group["momentum"]).add_(gradient)
        update = gradient.add(momentum, alpha=group["momentum"])
        if group["orthogonal"]:
            parameter.mul_(math.sqrt(len(parameter)) / parameter.norm())
            update = orthogonalised(update.reshape(len(update), -1), group["product_dtype"]).view(update.shape)
        parameter.add_(update, alpha=-group["lr"])
