"""Small real data: images of scikit-learn's digits, as a folder and as a job's data."""

import os
from pathlib import Path

import pytest
from PIL import Image
from training_process import Job

TRAIN, TEST = 9, 3
CLASSES = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # The tests run side by side: each of them trains on one thread, and so does torch in the tests themselves.
    os.environ["OMP_NUM_THREADS"] = "1"


def write_images(root: Path, train: int = TRAIN, test: int = TEST) -> Path:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    for name in CLASSES:
        chosen = images[labels == int(name)][: train + test].reshape(-1, 8, 8)
        for i, image in enumerate(chosen):
            folder = root / ("train" if i < train else "test") / name
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image * 15).astype("uint8")).resize((32, 32)).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 90 training and 30 test images. Not to be changed: see `own_images`."""
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty cache of datasets."""
    path = tmp_path / "cache"
    path.mkdir()
    return path


@pytest.fixture
def own_images(tmp_path: Path) -> Path:
    """A folder of a test's own, to break."""
    return write_images(tmp_path / "own", train=3, test=1)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def job(tmp_path: Path, images: Path, data_root: Path) -> Job:
    """Two epochs of 5 steps: 81 images in batches of 16, and one image over."""
    return Job.new(tmp_path / "job", str(images), data_root)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, images: Path, data_root: Path) -> Job:
    """The same job, trained by one process from its beginning to its end."""
    job = Job.new(tmp_path_factory.mktemp("jobs") / "undisturbed", str(images), data_root)
    job.run()
    return job
