"""Fixtures: a real daemon for every test that needs one, with its own home, process and training processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import LONG, RunningDaemon, make_home, running_daemon
from m1.datasets import MANIFEST
from m1.v1 import job_pb2

# A shell that runs the tests in the background has Ctrl-C ignored, and so would have every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Who takes one of these, or stands in one of these files, starts another process.
PROCESS_FIXTURES = {
    *("data_cache", "daemon", "bare", "quiet_daemon", "held_daemon", "old"),
    *("job", "undisturbed", "supervised", "home"),
}
PROCESS_FILES = {
    *("test_storm", "test_sweep", "test_home", "test_home_places", "test_life", "test_supervised"),
    *("test_command_line", "test_measurements", "test_train_own_recipe", "test_train_examples"),
    *("test_train_process", "test_train_resume", "test_train_failpoints", "test_train_foreign"),
    *("test_train_chars_job", "test_train_photos_job"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & PROCESS_FIXTURES or item.path.stem in PROCESS_FILES:
            item.add_marker(pytest.mark.process)


@pytest.fixture(scope="session")
def data_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two datasets, read once for all tests of a worker: "digits", and "few", which is 160 of them.

    A step on a few images takes a few hundredths of a second.
    """
    root, images = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("few")
    write_digits(images, train_images=12, test_images=4)
    for arguments in (["--source", "digits"], ["--source", str(images), "--name", "few"]):
        command = [sys.executable, "-P", "-m", "m1train", "prepare", "--data-root", str(root), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert len(list(root.glob(f"*/{MANIFEST}"))) == 2
    return root


def write_digits(directory: Path, train_images: int, test_images: int) -> None:
    """Real handwritten digits as <split>/<class>/<n>.png, that many a class."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for digit in range(10):
        chosen = digits.images[digits.target == digit][: train_images + test_images]
        for k, pixels in enumerate(chosen):
            path = directory / ("train" if k < train_images else "test") / str(digit) / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels * 15).astype("uint8")).resize((32, 32)).convert("RGB").save(path)


@pytest.fixture
def daemon(data_cache: Path) -> Iterator[RunningDaemon]:
    """A daemon that serves."""
    with running_daemon(data_cache) as running:
        yield running


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[RunningDaemon]:
    """A daemon without data: programs need none."""
    (tmp_path / "empty").mkdir()
    running = RunningDaemon(make_home(tmp_path / "empty"))
    try:
        running.start()
        yield running
    finally:
        running.end()


@pytest.fixture
def quiet_daemon(data_cache: Path) -> Iterator[RunningDaemon]:
    """A home, and a daemon that has not been started yet."""
    running = RunningDaemon(make_home(data_cache))
    try:
        yield running
    finally:
        running.end()


@pytest.fixture
def held_daemon(daemon: RunningDaemon) -> RunningDaemon:
    """A daemon whose machine is taken by a job called "holder", held at its first step: what comes stays queued."""
    job = daemon.client.submit("cifar", data="few", settings=LONG, name="holder")
    daemon.client.wait(job, until={job_pb2.JOB_STATE_RUNNING})
    job = daemon.client.pause(job.id, hold=True)
    assert daemon.client.wait(job, until={job_pb2.JOB_STATE_HELD}).state == job_pb2.JOB_STATE_HELD
    return daemon
