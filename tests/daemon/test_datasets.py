"""Data sets in the cache: one that nobody wants any more is removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import RunningDaemon
from m1.datasets import dataset_directories
from m1.errors import ExitCode, M1Error, Reason
from m1.paths import Home
from m1.v1 import job_pb2
from PIL import Image


def images(root: Path, grey: int) -> Path:
    for split in ("train", "test"):
        for name in ("dark", "light"):
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (grey, grey, 200 if name == "light" else 0)).save(folder / "0.png")
    return root


def test_a_data_set_is_deleted_with_its_earlier_versions_and_its_source_stays(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    source = images(tmp_path / "shades", 10)
    daemon.client.prepare_dataset(str(source), "shades")
    daemon.client.prepare_dataset(str(images(source, 90)), "shades")
    data = Home(daemon.home).data
    assert len(dataset_directories(data, "shades")) == 2
    took = sum(file.stat().st_size for d in dataset_directories(data, "shades") for file in d.iterdir())
    assert daemon.client.delete_dataset("shades") == took
    assert not dataset_directories(data, "shades")
    assert not list(data.glob(".*"))
    assert "shades" not in {dataset.name for dataset in daemon.client.datasets()}
    assert (source / "train" / "dark" / "0.png").exists()
    missing = daemon.m1ctl("data", "delete", "shades")
    assert missing.returncode == ExitCode.NOT_FOUND
    assert 'the data set "shades" is not in the cache' in missing.stderr


def test_a_data_set_that_a_job_wants_is_not_deleted(daemon: RunningDaemon) -> None:
    job = daemon.client.submit("cifar", data="few", settings={"epochs": 10_000})
    with pytest.raises(M1Error, match=f'"few" cannot be deleted while {job.id}') as refused:
        daemon.client.delete_dataset("few")
    assert refused.value.reason is Reason.WRONG_STATE
    daemon.client.cancel(job.id)
    assert daemon.client.wait(job).state == job_pb2.JOB_STATE_CANCELLED
    assert daemon.client.delete_dataset("few") > 0
