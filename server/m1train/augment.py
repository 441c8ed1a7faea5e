"""Where recipe files of 0.1.0 find the augmentations; now in m1train.task.classifier.augment."""

from m1train.task.classifier.augment import *  # noqa: F403
