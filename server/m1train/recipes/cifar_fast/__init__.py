"""The `cifar-fast` recipe as data: its config, budgets and declaration. The network is in cifar_fast_network.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from m1.columns import IMAGES_OF_32

from m1train.task.classifier.settings import METRICS, PREDICT, TrainingConfig
from m1train.task.settings import Declaration, setting


@dataclass(frozen=True)
class Budget:
    """What is trained in a budget of time."""

    sizes: tuple[int, ...]
    """The images' side in each epoch, in pixels; there are as many epochs. The last is that of an evaluation, too.

    Of one more than a multiple of 8 no row is lost: the whitening takes one, and the rest is halved three times.
    """
    widths: tuple[int, int, int]
    """The channels of the three groups."""
    lr: float
    """Muon's learning rate at its highest: the longer the training, the lower."""


# docs/benchmarks.md has how they were chosen, what they reach, and how long they take on which machine.
BUDGETS: Mapping[str, Budget] = {
    "1min": Budget((17, 17), (64, 128, 256), 0.24),
    "2min": Budget((17, 21, 25), (64, 128, 256), 0.24),
    "5min": Budget((17, 17, 17, 25, 25, 32, 32), (64, 128, 256), 0.12),
    "full": Budget((17, 17, 21, 21, 25, 25, 32, 32, 32, 32, 32, 32), (64, 256, 256), 0.12),
}


@dataclass(frozen=True, kw_only=True)
class CifarFastConfig(TrainingConfig):
    """The methods of the field's speed records for CIFAR-10."""

    budget: str = setting(
        "full",
        "About how long it takes on two cores with bf16: sets the epochs, the images' sizes, the channels and the lr.",
        choices=tuple(BUDGETS),
    )
    epochs: int = setting(
        0,
        "How often every training image is seen; with 0 as often as the budget has it.",
        minimum=0,
        maximum=100_000,
        unit="epochs",
    )
    batch_size: int = setting(
        512, "Images that one optimizer step learns from.", minimum=2, maximum=65_536, unit="images"
    )
    val_images: int = setting(
        0,
        "Training images that are held out for validation; the record's way is to learn from all of them.",
        minimum=0,
        maximum=10_000_000,
        unit="images",
    )
    lr: float = setting(
        0.0,
        "Muon's learning rate for the filters at its highest; it falls to 0 along a line; with 0 it is the budget's.",
        minimum=0,
        maximum=10,
    )
    label_smoothing: float = setting(
        0.2, "The part of the target that is spread over all classes.", minimum=0, maximum=0.99
    )
    shift: int = setting(
        2, "A training image is moved by up to this many of its 32 pixels.", minimum=0, maximum=15, unit="pixels"
    )
    views: int = setting(
        6,
        "Of how many views of an image an evaluation takes the mean: itself, mirrored, moved.",
        minimum=1,
        maximum=6,
    )


DECLARATION = Declaration(
    name="cifar-fast",
    summary="The speed records' methods for 32 x 32 colour images: the most accuracy that a budget of minutes buys.",
    default_data="cifar10",
    config=CifarFastConfig,
    needs=IMAGES_OF_32,
    metrics=METRICS,
    sample_unit="images",
    uses=(PREDICT,),
    implementation="m1train.recipes.cifar_fast.network:CifarFast",
    bfloat16=True,
)
