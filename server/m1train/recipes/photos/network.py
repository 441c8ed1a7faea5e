"""Networks of torchvision with another last layer, whose dropout follows from the Draw, and which can be frozen.

A network keeps torchvision's names for its tensors, so that a checkpoint's weights can be loaded there and theirs here.
The head is the last linear layer; all before it is the backbone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torchvision import models

from m1train.randomness import Draw

# The last linear layer, by network.
HEADS = {
    "resnet18": "fc",
    "mobilenet_v3_small": "classifier.3",
    "efficientnet_b0": "classifier.1",
    "convnext_tiny": "classifier.2",
}
# torch's default. torchvision's MobileNet takes 0.01, with which the statistics of an evaluation would still be half
# their first value after the 70 steps that two epochs of a thousand photographs are.
_BATCHNORM_MOMENTUM = 0.1


class DrawnDropout(nn.Module):
    """Dropout, of single features or of a sample's whole branch (stochastic depth), by masks that a Draw gives."""

    def __init__(self, layer: int, p: float, branch: bool) -> None:
        super().__init__()
        self.layer, self.p, self.branch = layer, p, branch
        self.draw: Draw | None = None
        """While it is None, nothing is dropped."""

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, x: Tensor) -> Tensor:
        """[B, features] or [B, C, H, W] times the mask; in an evaluation, as it is."""
        if self.draw is None or not self.training:
            return x
        mask = self.draw.dropout(self.layer, 1 if self.branch else x.shape[1], self.p, like=x)
        return x * mask.view(*mask.shape, *[1] * (x.ndim - 2))


class Head(nn.Linear):
    """In training it learns also where the gradients of what is before it are not asked for."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name for it
        """[B, features] to logits [B, C]."""
        with torch.enable_grad() if self.training else contextlib.nullcontext():
            return super().forward(input)


def network(name: str, n_classes: int) -> nn.Module:
    """Make a network: [B, 3, S, S] of any side S from 32 on to [B, n_classes]."""
    model: nn.Module = models.get_model(name, weights=None, num_classes=n_classes)
    drops = 0
    for path, module in list(model.named_modules()):
        kind = type(module).__name__
        if kind in {"Dropout", "StochasticDepth"}:
            _replace(
                model, path, DrawnDropout(drops, module.p, kind == "StochasticDepth") if module.p else nn.Identity()
            )
            drops += 1
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = _BATCHNORM_MOMENTUM
    last = model.get_submodule(HEADS[name])
    head = Head(last.in_features, last.out_features)  # type: ignore[arg-type]
    head.load_state_dict(last.state_dict())
    _replace(model, HEADS[name], head)
    return model


def has_batchnorm(name: str) -> bool:
    """Return True if a network has BatchNorm, which cannot learn from one image."""
    return name != "convnext_tiny"


def head_of(model: nn.Module) -> Head:
    """The last layer of a network, also of a compiled one."""
    return next(module for module in model.modules() if isinstance(module, Head))


def train_mode(model: nn.Module, frozen: bool) -> None:
    """Put a network into the mode of a training step; frozen, its backbone does what it does in an evaluation.

    So BatchNorm neither uses nor counts the statistics of the batch. The whole mode is set, whatever it was before.
    """
    model.train(not frozen)
    head_of(model).train()


@contextlib.contextmanager
def drawing(model: nn.Module, draw: Draw) -> Iterator[None]:
    """Inside, what is dropped follows from the draw; afterwards nothing is."""
    drops = [module for module in model.modules() if isinstance(module, DrawnDropout)]
    for module in drops:
        module.draw = draw
    try:
        yield
    finally:
        for module in drops:
            module.draw = None


def _replace(model: nn.Module, path: str, by: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, by)
