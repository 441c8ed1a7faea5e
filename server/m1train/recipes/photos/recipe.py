"""The `photos` recipe: images of one's own, of any size, with a network of torchvision, from scratch or fine-tuned.

Fine-tuning has two phases. In the first `freeze_epochs` only the new head learns: the backbone runs as in an
evaluation, BatchNorm's statistics included, without gradients and with a learning rate of 0, so AdamW neither decays it
nor begins to remember anything of it. Then everything learns, the backbone at a part of the head's rate. Which phase a
step belongs to follows from its epoch alone, so a training resumes exactly in both and across the border.

AdamW without decay of biases and norms; a rise along a line and a cosine by steps; random resized crops, mirroring and
slight colour; label smoothing; ImageNet's normalisation, which is what torchvision's weights were trained with.

Evidence: resnet18 at 32 pixels learnt five classes of CIFAR-10 (1,500 images of each, 5 epochs), then the other five
from 150 images of each, by turns from those weights and from scratch, in the same time of one thread (18 to 20 s of a
shared x86-64 machine with two cores): 66.5 % (65.4, 67.1, 66.9) of 5,000 test images against 64.8 % (63.8, 64.5, 66.1),
n = 3 seeds each, the better one in all three. `python bench/photos.py cifar10-jpeg.tar.xz --many 1500 --seconds 20`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from m1.paths import home_from_environment
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW, Optimizer

from m1train.randomness import Draw
from m1train.recipe import Classifier, Moment, Text
from m1train.recipes.photos import NEEDS, NO_INIT, TORCHVISION, PhotosConfig
from m1train.recipes.photos.crops import drawn_crops, resized_crops
from m1train.recipes.photos.download import address, cached
from m1train.recipes.photos.network import HEADS, drawing, has_batchnorm, head_of, network, train_mode
from m1train.recipes.photos.weights import Weights, read_weights, take
from m1train.task.classifier.augment import AugmentationSpread, as_floats, jittered, normalised
from m1train.task.recipe import Arrays

# ImageNet's channels, as torchvision's weights were trained with them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Photos(Classifier[PhotosConfig]):
    """Learns to classify images of your own, of any size, with a network of torchvision."""

    Config = PhotosConfig
    default_data = ""
    needs = NEEDS

    def __init__(self, config: PhotosConfig) -> None:
        super().__init__(config)
        self._fine_tunes = config.init != NO_INIT
        self._read: Weights | None = None
        self._colour = AugmentationSpread(config.flip, 0, config.colour, config.colour, config.colour)

    @property
    def least_batch(self) -> int:
        """See Task: two, where there is BatchNorm."""
        return 2 if has_batchnorm(self.config.network) else 1

    @property
    def evaluation_batch_size(self) -> int:
        """See Task: fewer than of small images."""
        return 64

    @property
    def fit_samples(self) -> int:
        """See Task: none, but for the call of `initialise`, where there is something to take."""
        return int(self._fine_tunes)

    # Weights to begin with

    def facts(self, columns: Arrays) -> Mapping[str, Any]:
        """Read what `init` names, and remember its hash, which decides every bit that follows.

        Every checkpoint keeps it. A resume has it from there and reads no file: it may be gone.

        Raises:
            M1Error: INVALID_SETTING or FILE_NOT_FOUND for a file that cannot be read; DOWNLOAD_FAILED, DISK_FULL.
        """
        del columns
        if not self._fine_tunes:
            return {"init": None}
        weights = self._weights()
        return {"init": {"source": weights.source, "sha256": weights.sha256}}

    def model(self, n_classes: int) -> nn.Module:
        """Make a new network with torchvision's own initialisation."""
        return network(self.config.network, n_classes)

    def initialise(self, model: nn.Module, images: Tensor) -> None:
        """Take what `init` names; the head stays new.

        Raises:
            M1Error: as `facts`; INVALID_SETTING for a file of another network.
        """
        del images
        if self._fine_tunes:
            taken = take(model, self._weights(), self.config.network, HEADS[self.config.network])
            self._read = None
            self.notes.append(Text("init", "What the network took of the weights that it began with.", taken.sentence))

    def _weights(self) -> Weights:
        """What `init` names, read once: what was hashed is what is taken."""
        if self._read is None:
            path = self.config.init
            if path == TORCHVISION:
                path = str(cached(address(self.config.network), home_from_environment().cache / "weights"))
            self._read = read_weights(path)
        return self._read

    # Training

    def optimizer(self, model: nn.Module) -> Optimizer:
        """Make AdamW; the head's groups come first, and its rate is the one that is recorded."""
        config, head = self.config, {id(parameter) for parameter in head_of(model).parameters()}
        groups = []
        for backbone, lr in ((False, config.lr), (True, config.lr * (config.backbone_lr if self._fine_tunes else 1))):
            part = [parameter for parameter in model.parameters() if backbone is (id(parameter) not in head)]
            for decay, chosen in (
                (config.weight_decay, [parameter for parameter in part if parameter.ndim > 1]),
                (0.0, [parameter for parameter in part if parameter.ndim <= 1]),
            ):
                groups.append({"params": chosen, "lr": lr, "weight_decay": decay, "backbone": backbone})
        return AdamW(groups)

    def _frozen(self, epoch: int) -> bool:
        return self._fine_tunes and epoch < self.config.freeze_epochs

    def rate(self, at: Moment) -> float:
        """Rise to 1 along a line, then fall along a cosine, step by step."""
        steps = at.steps_per_epoch * at.epochs
        rising = max(1.0, self.config.warmup * steps)
        if at.step + 1 < rising:
            return (at.step + 1) / rising
        return (1 + math.cos(math.pi * at.fraction)) / 2

    def set_rates(self, optimizer: Optimizer, at: Moment) -> None:
        """Set the rates of a step; the backbone's is 0 while it is frozen."""
        for group in optimizer.param_groups:
            moves = not (group["backbone"] and self._frozen(at.epoch))
            group["lr"] = group["initial_lr"] * self.rate(at) if moves else 0.0

    def training_inputs(self, images: Tensor, draw: Draw) -> Tensor:
        """Crop, mirror, colour and normalise: [B, S, S, 3] uint8 to [B, 3, S, S] float32."""
        colour = self._colour.draw(draw)
        parts = resized_crops(as_floats(images), drawn_crops(draw, self.config.smallest_crop), colour.flip)
        return normalised(jittered(parts, colour.factors, colour.order), MEAN, STD)

    def evaluation_inputs(self, images: Tensor) -> Tensor:
        """Normalise: [B, S, S, 3] uint8 to [B, 3, S, S] float32."""
        return normalised(as_floats(images), MEAN, STD)

    def training_logits(self, model: nn.Module, inputs: Tensor, draw: Draw) -> Tensor:
        """Compute [B, C] with the draw's dropout; while the backbone is frozen, with gradients of the head alone."""
        frozen = self._frozen(draw.epoch)
        train_mode(model, frozen)
        with drawing(model, draw), torch.set_grad_enabled(not frozen):
            logits: Tensor = model(inputs)
        return logits

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute cross-entropy with smoothed labels, in float32."""
        return functional.cross_entropy(logits.float(), labels, label_smoothing=self.config.label_smoothing)
