"""What every classifier of images declares: its settings, its metrics, its use. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from m1.columns import Need
from m1.metrics import LOSS, Metric
from m1.settings import Setting

from m1train.task.settings import EngineConfig, Use, setting

ACCURACY = Metric("accuracy", "fraction", "more", "The fraction of the images whose class is called right.")
METRICS = (ACCURACY, LOSS)
PREDICT = Use(
    "predict",
    "Name the class of each image file.",
    (Setting("top", "int", 1, "How many classes are named for each file.", minimum=1, maximum=1000),),
    inputs="files",
)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(EngineConfig):
    """The settings that every classifier of images has."""

    epochs: int = setting(15, "How often every training image is seen.", minimum=1, maximum=100_000, unit="epochs")
    batch_size: int = setting(
        128, "Images that one optimizer step learns from.", minimum=2, maximum=65_536, unit="images"
    )
    val_images: int = setting(
        5000,
        "Training images that are held out for validation, in equal shares of the classes; at most a tenth of them.",
        minimum=0,
        maximum=10_000_000,
        unit="images",
    )


@dataclass(frozen=True, kw_only=True)
class SmallImagesConfig(TrainingConfig):
    """The settings of a classifier of 32 x 32 images: how others become so."""

    fit: str = setting(
        "squeeze",
        "How an image of another shape becomes 32 x 32: squeezed, cut to its middle, or whole with a border.",
        choices=("squeeze", "crop", "pad"),
        neutral=True,
    )
    background: str = setting(
        "white",
        "The colour behind a transparent image, and beside a padded one: white, black, grey or #rrggbb.",
        neutral=True,
    )


# At their defaults it is what 0.1.0 read.
SMALL_IMAGES = (Need("image", {"background": "$background", "fit": "$fit", "size": "32"}), Need("label"))

ConfigT = TypeVar("ConfigT", bound=TrainingConfig)
