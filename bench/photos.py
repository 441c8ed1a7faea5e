"""Fine-tuning beside training from scratch, at equal time: the `photos` recipe on classes that it has few images of.

    python bench/photos.py cifar10-jpeg.tar.xz [--seconds 30] [--few 150] [--seeds 3]

The archive holds <anything>/<split>/<class>/<image>. A network learns the first half of the classes, of which it has
many images, and its weights are stored as a file. Then the recipe learns the other half, with few images of each class,
by turns from that file (`init`) and from scratch: as many epochs as are trained in the given time, by what an epoch of
either took before. Time is the processor's, of the one thread that trains: others may use the machine meanwhile.
Everything else is the recipe's default. The accuracy is that of the last step, on all test images of that half. Prints
a line for each training, and one JSON line.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tarfile
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from m1.columns import Column
from m1.jobdir import Profile
from m1train.checkpoints.tensor_file import write_tensors
from m1train.engine.batches import Batches, raw_batch
from m1train.engine.device import set_up
from m1train.engine.stopwatch import Stopwatch
from m1train.engine.training import Training
from m1train.recipe import DataInfo, Moment, Rows
from m1train.recipes.photos import PhotosConfig
from m1train.recipes.photos.recipe import Photos
from m1train.task.settings import resolved
from PIL import Image


@dataclass(frozen=True)
class Half:
    """Half of the classes."""

    classes: tuple[str, ...]
    train: Rows
    test: Rows

    @property
    def info(self) -> DataInfo:
        return DataInfo({"label": Column("label", "label", "int64", classes=self.classes)}, {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--many", type=int, default=2000, help="training images of each class of the first half")
    parser.add_argument("--many-epochs", type=int, default=5)
    parser.add_argument(
        "--weights", type=Path, help="where the first half's weights are kept; not learnt again if there"
    )
    parser.add_argument("--few", type=int, default=150, help="training images of each class of the other half")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--backbone-lr", type=float, default=PhotosConfig.backbone_lr)
    given = parser.parse_args()
    device = set_up(Profile(threads=1))
    common = {"network": given.network, "size": given.size, "val_images": 0}
    files = read(given.archive)
    classes = sorted({name for _, name in files})
    halves = classes[: len(classes) // 2], classes[len(classes) // 2 :]
    first, other = (half(files, names, n, given.size) for names, n in zip(halves, (given.many, given.few), strict=True))

    def trained(on: Half, **settings: object) -> tuple[Training, float, float]:
        """A training to its end: with it the seconds of its steps, and the accuracy on the test images."""
        task = Photos(resolved(PhotosConfig, common | settings))
        task.facts({})
        rows = raw_batch(on.train, np.arange(task.fit_samples), None) if task.fit_samples else None
        training = Training.assemble(task, device, on.info, rows)
        config = task.config
        batches = Batches(on.train, np.arange(len(on.train)), config.batch_size, config.seed, task.least_batch)
        watch, per_epoch = Stopwatch(time.perf_counter), batches.steps_per_epoch
        began = time.process_time()
        for step in range(config.epochs * per_epoch):
            at = Moment(step, per_epoch, config.epochs)
            training.step(at, lambda at=at: training.training_batch(batches.batch(*divmod(at.step, per_epoch))), watch)  # type: ignore[misc]
        took_s = time.process_time() - began
        judged = training.evaluate(on.test, np.arange(len(on.test)), task.evaluation(on.info, "val"))
        return training, took_s, judged.metrics()["accuracy"]

    with tempfile.TemporaryDirectory() as folder:
        path = given.weights or Path(folder) / "weights.safetensors"
        if not path.exists():
            training, took_s, accuracy = trained(first, epochs=given.many_epochs)
            tensors = {name: tensor.contiguous() for name, tensor in training.model.state_dict().items()}
            write_tensors(path, tensors)
            print(f"first half {first.classes}: {took_s:.0f} s, accuracy {accuracy:.4f}", flush=True)
        ways = {"scratch": {}, "init": {"init": str(path.resolve()), "backbone_lr": given.backbone_lr}}
        _, frozen_s, _ = trained(other, epochs=1, freeze_epochs=1, **ways["init"])
        _, whole_s, _ = trained(other, epochs=1)
        epochs = {
            "scratch": max(1, round(given.seconds / whole_s)),
            "init": 1 + max(1, round((given.seconds - frozen_s) / whole_s)),
        }
        found = defaultdict[str, list[tuple[float, float]]](list)
        for seed in range(given.seeds):
            for way, settings in ways.items():
                _, took_s, accuracy = trained(other, epochs=epochs[way], seed=seed, **settings)
                found[way].append((took_s, accuracy))
                print(f"{way} seed {seed}: {epochs[way]} epochs, {took_s:.1f} s, accuracy {accuracy:.4f}", flush=True)
    said = {
        way: {
            "epochs": epochs[way],
            "mean_accuracy": statistics.mean(accuracy for _, accuracy in runs),
            "accuracy": [accuracy for _, accuracy in runs],
            "seconds": [round(seconds, 1) for seconds, _ in runs],
        }
        for way, runs in found.items()
    }
    print(json.dumps({"classes": other.classes, "few": given.few, "network": given.network, **said}))


def read(archive: Path) -> dict[tuple[str, str], list[bytes]]:
    """The files of each split and class, in the order of their names."""
    found = defaultdict[tuple[str, str], list[tuple[str, bytes]]](list)
    with tarfile.open(archive) as tar:
        for member in tar:
            *_, split, name, file = ("", "", *member.name.split("/"))
            content = tar.extractfile(member)
            if content and split in {"train", "test"}:
                found[split, name].append((file, content.read()))
    return {key: [content for _, content in sorted(files)] for key, files in found.items()}


def half(files: dict[tuple[str, str], list[bytes]], classes: list[str], n: int, size: int) -> Half:
    """Some classes, with n training images of each."""

    def rows(split: str, most: int | None) -> Rows:
        labelled = [(content, i) for i, name in enumerate(classes) for content in files[split, name][:most]]
        images = [
            np.asarray(Image.open(io.BytesIO(content)).convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
            for content, _ in labelled
        ]
        return Rows({"image": np.stack(images), "label": np.array([label for _, label in labelled], np.int64)})

    return Half(tuple(classes), rows("train", n), rows("test", None))


if __name__ == "__main__":
    main()
