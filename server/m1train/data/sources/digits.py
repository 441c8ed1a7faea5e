"""scikit-learn's handwritten digits as a dataset: real, small, and inside an installed package.

1,797 images of 8 x 8 in 17 greys (a part of UCI's optdigits), drawn up to RGB of the size that is asked for.
Every fifth image of each class is a test image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from m1train.data.decode import SQUEEZED_TO_32, Sample
from m1train.data.fit import Fit
from m1train.data.progress import Progress

_GREYS = 16


class Digits:
    """The source."""

    description = "scikit-learn's handwritten digits"
    fingerprint = "digits-1"
    notes: Sequence[str] = ()

    def samples(self, progress: Progress, fit: Fit = SQUEEZED_TO_32) -> Iterator[Sample]:
        """1,438 images train and 359 test, or thereabouts; progress is in images."""
        from sklearn.datasets import load_digits  # slow to import, and only needed here

        images, labels = load_digits(return_X_y=True)
        seen: Counter[int] = Counter()
        for i, (image, label) in enumerate(zip(images.reshape(-1, 8, 8), labels, strict=True)):
            split = "test" if seen[label] % 5 == 4 else "train"
            seen[label] += 1
            grey = Image.fromarray(np.round(image * (255 / _GREYS)).astype(np.uint8))
            yield Sample(split, str(label), f"{i:04d}", np.asarray(fit.square(grey), np.uint8))
            progress("read", i + 1, len(labels))
