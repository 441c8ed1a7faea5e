"""Four thousand classes: such a job trains, ends, and all that it keeps and says is bounded."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from m1.checkpoint_state import MAX_STATE_BYTES
from m1.columns import Column, Need
from m1.jobdir import checkpoint_path, result_path, results_path
from m1.journal import Metrics, Result
from m1.limits import RESULT_BYTES
from m1train.data.cache import build
from m1train.data.columns import Stored, declaration, file_of
from training_process import Job, ended, exited

CLASSES, SIDE = 4000, 8
NEEDS = (Need("image", {"fit": "squeeze", "size": str(SIDE)}), Need("label"))
NAMES = tuple(f"class number {number:04}, with a name of some length" for number in range(CLASSES))
RECIPE = f'''
"""Tells four thousand kinds of dots apart."""
from m1train.recipe import Classifier, Need
from torch import nn
from torch.optim import SGD


class Dots(Classifier):
    """A linear classifier of {SIDE} x {SIDE} images."""

    needs = (Need("image", {{"fit": "squeeze", "size": "{SIDE}"}}), Need("label"))

    def model(self, n_classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * {SIDE} * {SIDE}, n_classes))

    def optimizer(self, model):
        return SGD(model.parameters(), lr=0.1)
'''


class Dots:
    """Two images of each class to train on and one to test on, in the place of 12,000 files."""

    description, fingerprint = "dots", "1"

    @staticmethod
    def store(directory: Path) -> Stored:
        image = Column("image", "image", "uint8", (SIDE, SIDE, 3), NEEDS[0].options)
        columns = (image, Column("label", "label", "int64", (), {}, NAMES))
        rows = {"train": 2 * CLASSES, "test": CLASSES}
        for split, n in rows.items():
            labels = np.sort(np.arange(n, dtype=np.int64) % CLASSES)
            pixels = (labels[:, None] * 7919 + np.arange(SIDE * SIDE * 3)) % 256
            np.save(file_of(directory, split, "image"), pixels.astype(np.uint8).reshape(n, SIDE, SIDE, 3))
            np.save(file_of(directory, split, "label"), labels)
        return Stored(columns, rows, hashlib.sha256(declaration(columns)).hexdigest())


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    root = tmp_path_factory.mktemp("many")
    build(root / "cache", "dots", NEEDS, Dots(), Dots.store)
    job = Job.of_file(root / "job", RECIPE, Path("dots"), root / "cache", epochs=1, batch_size=500)
    job.run()
    return job


def test_it_trains_to_its_end_and_is_judged(job: Job) -> None:
    records = job.journals()
    assert ended(records, "succeeded"), exited(records)
    (tested,) = (r.values for r in records if isinstance(r, Metrics) and "test/accuracy" in r.values)
    assert 0 <= tested["test/accuracy"] <= 1


def test_its_results_say_all_classes_within_what_is_allowed(job: Job) -> None:
    said = {r.name: r for r in job.journals() if isinstance(r, Result)}
    assert {"classes", "confusion", "mistakes"} <= set(said)
    assert all(file.stat().st_size <= RESULT_BYTES for file in results_path(job.directory).iterdir())
    classes = json.loads(result_path(job.directory, "classes", "table").read_text())
    assert [row[0] for row in classes["rows"]] == list(NAMES)
    confusion = json.loads(result_path(job.directory, "confusion", "table").read_text())
    assert sum(count for _, _, count in confusion["rows"]) == CLASSES, "each was called something, once"


def test_its_checkpoint_knows_their_names_and_its_journal_says_none(job: Job) -> None:
    step = exited(job.journals()).step
    state = checkpoint_path(job.directory, step) / "state.json"
    assert state.stat().st_size < MAX_STATE_BYTES
    data = json.loads(state.read_text())
    label = next(column for column in data["job"]["columns"] if column["name"] == "label")
    assert label["classes"] == list(NAMES)
    journal = (job.directory / "journal-1").read_bytes()
    assert len(journal) < 100_000
    assert NAMES[0].encode() not in journal
