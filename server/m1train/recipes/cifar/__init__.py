"""The `cifar` recipe as data: its config and its declaration. The network is in cifar_network.py."""

from __future__ import annotations

from dataclasses import dataclass

from m1train.task.classifier.settings import METRICS, PREDICT, SMALL_IMAGES, SmallImagesConfig
from m1train.task.settings import Declaration, setting


@dataclass(frozen=True, kw_only=True)
class CifarConfig(SmallImagesConfig):
    """A small convolutional network for 32 x 32 images, trained the plain way."""

    lr: float = setting(
        0.001, "Learning rate of the first epoch; it falls along a cosine over the epochs.", minimum=0, maximum=10
    )
    weight_decay: float = setting(1e-4, "AdamW's decoupled weight decay.", minimum=0, maximum=10)
    clip_norm: float = setting(
        1.0, "The gradient is scaled down to this norm when it is longer; 0 leaves it as it is.", minimum=0, maximum=1e6
    )
    flip: float = setting(0.5, "Probability that a training image is mirrored left to right.", minimum=0, maximum=1)
    rotation_degrees: float = setting(
        10, "A training image is turned by up to this angle, either way.", minimum=0, maximum=180, unit="degrees"
    )
    brightness: float = setting(0.1, "Brightness varies by up to this fraction.", minimum=0, maximum=1)
    contrast: float = setting(0.1, "Contrast varies by up to this fraction.", minimum=0, maximum=1)
    saturation: float = setting(0.1, "Saturation varies by up to this fraction.", minimum=0, maximum=1)


DECLARATION = Declaration(
    name="cifar",
    summary="A 1.28M-parameter convolutional network that learns to classify 32 x 32 colour images.",
    default_data="cifar10",
    config=CifarConfig,
    needs=SMALL_IMAGES,
    metrics=METRICS,
    sample_unit="images",
    uses=(PREDICT,),
    implementation="m1train.recipes.cifar.network:Cifar",
)
