"""The `photos` recipe as data: its config and its declaration. The class is in recipe.py."""

from __future__ import annotations

from dataclasses import dataclass

from m1.columns import Need

from m1train.task.classifier.settings import METRICS, PREDICT, TrainingConfig
from m1train.task.settings import Declaration, setting

NETWORKS = ("resnet18", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny")
NO_INIT, TORCHVISION = "none", "torchvision"
NEEDS = (Need("image", {"background": "$background", "fit": "$fit", "size": "$size"}), Need("label"))


@dataclass(frozen=True, kw_only=True)
class PhotosConfig(TrainingConfig):
    """A network of torchvision for images of one's own, from scratch or from weights that were trained before."""

    batch_size: int = setting(
        32, "Images that one optimizer step learns from.", minimum=2, maximum=65_536, unit="images"
    )
    size: int = setting(
        160, "The side of the square that every image is read into.", minimum=32, maximum=1024, unit="pixels"
    )
    fit: str = setting(
        "crop",
        "How an image that is not square gets there: its middle, whole with a border, or squeezed.",
        choices=("crop", "pad", "squeeze"),
    )
    background: str = setting(
        "white", "The colour beside a padded image, and behind a transparent one: white, black, grey or #rrggbb."
    )
    network: str = setting("resnet18", "The network, as torchvision calls it.", choices=NETWORKS)
    init: str = setting(
        NO_INIT,
        "Weights to begin with: none, torchvision's own (downloaded once), or a file (safetensors or .pth).",
        choices=(NO_INIT, TORCHVISION),
        path=True,
    )
    freeze_epochs: int = setting(
        1,
        "With `init`, only the new last layer learns in the first n epochs; then everything does.",
        minimum=0,
        maximum=100_000,
        unit="epochs",
    )
    lr: float = setting(
        0.001,
        "Learning rate at its highest; it rises along a line, then falls along a cosine, step by step.",
        minimum=0,
        maximum=10,
    )
    backbone_lr: float = setting(
        0.1, "With `init`, the learning rate of all but the last layer is this part of lr.", minimum=0, maximum=1
    )
    warmup: float = setting(0.05, "The part of the training in which the learning rate rises.", minimum=0, maximum=0.5)
    weight_decay: float = setting(
        0.01, "AdamW's decoupled weight decay; of matrices and filters only.", minimum=0, maximum=10
    )
    label_smoothing: float = setting(
        0.1, "The part of the target that is spread over all classes.", minimum=0, maximum=0.99
    )
    smallest_crop: float = setting(
        0.35,
        "A training image is cut out of at least this part of the whole one's area; with 1 it is the whole one.",
        minimum=0.01,
        maximum=1,
    )
    flip: float = setting(0.5, "Probability that a training image is mirrored left to right.", minimum=0, maximum=1)
    colour: float = setting(
        0.2, "Brightness, contrast and saturation vary by up to this fraction.", minimum=0, maximum=1
    )


DECLARATION = Declaration(
    name="photos",
    summary="Learns to classify images of your own, of any size, with a network of torchvision.",
    default_data="",
    config=PhotosConfig,
    needs=NEEDS,
    metrics=METRICS,
    sample_unit="images",
    uses=(PREDICT,),
    implementation="m1train.recipes.photos.recipe:Photos",
)
