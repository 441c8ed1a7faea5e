"""Segmentation from pairs of image and mask: m1ctl submit ./segmentation.py --data ./pairs --watch.

The folder holds images/NAME.png and masks/NAME.png; what is not black in a mask is what is looked for.
"""

from dataclasses import dataclass

import numpy as np
import torch
from m1train.recipe import LOSS, Batch, Metric, Stream, Task, TaskConfig, setting
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.optim import AdamW


class Segmentation(Task):
    """A small convolutional network that marks what belongs to the object, pixel by pixel."""

    metrics = (
        Metric("iou", "fraction", "more", "The part of mark and mask together that is in both."),
        LOSS,
    )
    sample_unit = "images"

    @dataclass(frozen=True, kw_only=True)
    class Config(TaskConfig):
        size: int = setting(64, "Images and masks are scaled to this side.", minimum=8, maximum=1024, unit="pixels")
        lr: float = setting(0.003, "Learning rate of the first epoch; then along a cosine.", minimum=0, maximum=1)
        width: int = setting(16, "Channels of the hidden layers.", minimum=1, maximum=1024)

    def read(self, source):
        side, images, masks = self.config.size, [], []
        for path in sorted((source / "images").glob("*.png")):
            images.append(np.asarray(Image.open(path).convert("RGB").resize((side, side))))
            mask = Image.open(source / "masks" / path.name).convert("L")
            masks.append(np.asarray(mask.resize((side, side), Image.Resampling.NEAREST)) > 0)
        return {"train": {"image": np.stack(images), "mask": np.stack(masks)}}

    def network(self, info):
        width = self.config.width
        layers = [nn.Conv2d(a, width, 3, padding=d, dilation=d) for a, d in ((3, 1), (width, 2), (width, 4))]
        return nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())), nn.Conv2d(width, 1, 1))

    def optimizer(self, model):
        return AdamW(model.parameters(), lr=self.config.lr)

    def training_batch(self, rows, draw):  # image and mask are mirrored together
        flip = torch.from_numpy(draw.uniforms(Stream.AUGMENTATION, 1)[:, 0] < 0.5)[:, None, None]
        image = torch.where(flip[..., None], rows["image"].flip(2), rows["image"])
        return self.evaluation_batch({"image": image, "mask": torch.where(flip, rows["mask"].flip(2), rows["mask"])})

    def evaluation_batch(self, rows):
        return Batch({"image": rows["image"].permute(0, 3, 1, 2).float() / 255, "mask": rows["mask"].float()})

    def training_loss(self, model, batch, draw):
        logits, mask = model(batch["image"])[:, 0].float(), batch["mask"]
        marked = (logits > 0).float()
        iou = (marked * mask).sum() / (marked + mask).clamp(max=1).sum().clamp(min=1)
        return functional.binary_cross_entropy_with_logits(logits, mask), {"iou": iou}
