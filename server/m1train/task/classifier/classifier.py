"""The short form of a task for images with a label: a model for n classes and an optimizer are enough.

A classifier has what every classifier of images has in common: inputs that are normalised and mirrored, cross-entropy,
accuracy, a confusion matrix. What it has not in common it replaces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from m1.columns import IMAGES_OF_32, Need
from m1.metrics import Metric
from m1.settings import Value
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from m1train.randomness import Draw, Stream, even_split
from m1train.task.classifier.augment import as_floats, mirrored, normalised
from m1train.task.classifier.evaluation import ClassifierEvaluation
from m1train.task.classifier.settings import METRICS, PREDICT, ConfigT, TrainingConfig
from m1train.task.recipe import STREAMS, Batch, DataInfo, Rows, Samples, Split, Task, UnfitError, called
from m1train.task.settings import Use

# CIFAR-10's channels, as the recipe that this project set out from normalised them.
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


class Classifier(Task[ConfigT]):
    """A classifier of images: [B, S, S, 3] uint8 in, [B, C] logits out."""

    Config: ClassVar[type[TrainingConfig]] = TrainingConfig
    """The settings: a frozen dataclass that derives from TrainingConfig."""
    default_data: ClassVar[str] = "cifar10"
    needs: ClassVar[tuple[Need, ...]] = IMAGES_OF_32
    metrics: ClassVar[tuple[Metric, ...]] = METRICS
    sample_unit: ClassVar[str] = "images"
    uses: ClassVar[tuple[Use, ...]] = (PREDICT,)
    base_config: ClassVar[type[TrainingConfig]] = TrainingConfig
    own_names: ClassVar[Mapping[str, str]] = {"network": "model", "training_loss": "loss"}

    # What a classifier has

    def model(self, n_classes: int) -> nn.Module:
        """Make a new model."""
        raise NotImplementedError(f"{type(self).__name__} has no `model`")

    def initialise(self, model: nn.Module, images: Tensor) -> None:
        """Set what follows from the data: called once, before the first step, with N training images [N, S, S, 3]."""

    def training_inputs(self, images: Tensor, draw: Draw) -> Tensor:
        """Augment and normalise: [B, 3, H, W] float32. Here every other image is mirrored."""
        flip = draw.uniforms(Stream.AUGMENTATION, 1)[:, 0] < 0.5
        return self.evaluation_inputs(mirrored(images, flip))

    def evaluation_inputs(self, images: Tensor) -> Tensor:
        """Normalise: [B, 3, S, S] float32."""
        return normalised(as_floats(images), MEAN, STD)

    def training_logits(self, model: nn.Module, inputs: Tensor, draw: Draw) -> Tensor:
        """Compute [B, C] of augmented inputs."""
        del draw
        logits: Tensor = model(inputs)
        return logits

    def evaluation_logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Compute [B, C] of inputs that are not augmented; nothing may be random."""
        logits: Tensor = model(inputs)
        return logits

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the mean loss over a batch, in float32 whatever the logits' type: cross-entropy of [B, C] and [B]."""
        return functional.cross_entropy(logits.to(torch.float32), labels)

    # What makes a task of it

    @property
    def n_validation(self) -> int:
        """See Task."""
        return self.config.val_images

    @property
    def least_batch(self) -> int:
        """See Task: BatchNorm cannot learn from one image."""
        return 2

    def network(self, info: DataInfo) -> nn.Module:
        """See Task."""
        self._n_classes = len(info.columns["label"].classes)
        return self.model(self._n_classes)

    @property
    def fit_samples(self) -> int:
        """See Task: enough for the statistics of small patches, where there is something to set."""
        return 0 if type(self).initialise is Classifier.initialise else 5000

    def fit_network(self, model: nn.Module, rows: Batch) -> None:
        """See Task."""
        self.initialise(model, rows["image"])

    def split(
        self, samples: Samples, among: NDArray[np.int64], n: int, purpose: Split
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """See Task: in equal shares of the classes."""
        assert isinstance(samples, Rows)
        rest, held_out = even_split(self.config.seed, samples.columns["label"][among], n, STREAMS[purpose])
        return among[rest], among[held_out]

    def training_batch(self, rows: Batch, draw: Draw) -> Batch:
        """See Task."""
        return Batch({"image": self.training_inputs(rows["image"], draw), "label": rows["label"]})

    def evaluation_batch(self, rows: Batch) -> Batch:
        """See Task; with the images as they were read, for the result that shows some."""
        inputs = self.evaluation_inputs(rows["image"])
        return Batch({"image": inputs, "label": rows["label"], "as_read": rows["image"]})

    def training_loss(
        self, model: nn.Module, batch: Batch, draw: Draw | None
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """See Task."""
        assert draw is not None  # an evaluation goes by evaluation_logits
        labels = batch["label"]
        logits = self.training_logits(model, batch["image"], draw)
        self._check_logits("training_logits", logits, len(labels))
        loss = self.loss(logits, labels)
        if not (isinstance(loss, Tensor) and loss.ndim == 0):
            raise UnfitError(
                "loss", f"loss gives {called(loss)} and not a tensor with one number, the mean over the batch"
            )
        return loss, {"accuracy": (logits.detach().argmax(1) == labels).sum() / len(labels)}

    def judged(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute the logits [B, C] of an evaluation's batch, and their mean loss."""
        logits = self.evaluation_logits(model, batch["image"])
        self._check_logits("evaluation_logits", logits, batch.size)
        return logits, self.loss(logits, batch["label"])

    def evaluation(self, info: DataInfo, split: Split) -> ClassifierEvaluation:
        """See Task."""
        return ClassifierEvaluation(self.judged, info.columns["label"].classes, shows_results=split == "test")

    def use(
        self, name: str, model: nn.Module, info: DataInfo, inputs: Sequence[Path], options: Mapping[str, Value]
    ) -> Iterator[Mapping[str, Value]]:
        """See Task: `predict`."""
        from m1train.task.classifier.predict import predict

        if name != "predict":
            yield from super().use(name, model, info, inputs, options)
        top = options["top"]
        assert isinstance(top, int)
        yield from predict(self, model, info, inputs, top)

    def _check_logits(self, method: str, logits: object, n: int) -> None:
        expected = [n, self._n_classes]
        if not isinstance(logits, Tensor) or list(logits.shape) != expected:
            problem = f"gives {called(logits)} for {n} images of {self._n_classes} classes, and not {expected}"
            raise UnfitError(method, f"{method} {problem}")
