"""The `cifar-fast` recipe as data: its config and declaration. Its plans are in plans.py, its network in network.py."""

from __future__ import annotations

from dataclasses import dataclass

from m1train.recipes.cifar_fast.plans import BUDGETS, FULL
from m1train.task.classifier.settings import METRICS, PREDICT, SMALL_IMAGES, SmallImagesConfig
from m1train.task.settings import Declaration, setting

__all__ = ["BUDGETS", "DECLARATION", "CifarFastConfig"]


@dataclass(frozen=True, kw_only=True)
class CifarFastConfig(SmallImagesConfig):
    """The methods of the field's speed records for CIFAR-10."""

    budget: str = setting(
        FULL,
        "How long it may take on this machine: 90s, 2min, 1h30m; a submit chooses the sizes, widths, epochs and lr "
        f'that fit. "{FULL}": the longest plan that was measured, whatever it takes.',
    )
    sizes: str = setting(
        "",
        "The images' sides in pixels, spread over the epochs: 17,21,25; empty: chosen by the budget.",
        unit="pixels",
        neutral=True,
    )
    widths: str = setting(
        "",
        "The channels of the three groups: 64,128,256; empty: chosen by the budget.",
        unit="channels",
        neutral=True,
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
    promised_s: float = setting(
        0.0,
        "What the plan was promised to take when it was chosen; a result says what it took. With 0 nothing was.",
        minimum=0,
        maximum=31_536_000,
        unit="s",
        neutral=True,
    )


DECLARATION = Declaration(
    name="cifar-fast",
    summary="The speed records' methods for 32 x 32 colour images: the most accuracy that a budget of minutes buys.",
    default_data="cifar10",
    config=CifarFastConfig,
    needs=SMALL_IMAGES,
    metrics=METRICS,
    sample_unit="images",
    uses=(PREDICT,),
    implementation="m1train.recipes.cifar_fast.network:CifarFast",
    planner="m1train.recipes.cifar_fast.plans:plan",
    bfloat16=True,
)
