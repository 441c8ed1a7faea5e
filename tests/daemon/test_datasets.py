"""Datasets in the cache: one that nobody wants any more is removed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness import RunningDaemon
from m1.datasets import dataset_directories
from m1.errors import ExitCode, M1Error, Reason
from m1.paths import Home
from m1.v1 import dataset_pb2, dataset_pb2_grpc, job_pb2
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
    assert 'the dataset "shades" is not in the cache' in missing.stderr


def test_a_data_set_that_a_job_wants_is_not_deleted(daemon: RunningDaemon) -> None:
    job = daemon.client.submit("cifar", data="few", settings={"epochs": 10_000})
    with pytest.raises(M1Error, match=f'"few" cannot be deleted while {job.id}') as refused:
        daemon.client.delete_dataset("few")
    assert refused.value.reason is Reason.WRONG_STATE
    daemon.client.cancel(job.id)
    assert daemon.client.wait(job).state == job_pb2.JOB_STATE_CANCELLED
    assert daemon.client.delete_dataset("few") > 0


def prepared(daemon: RunningDaemon, source: str, name: str = "", **settings: Any) -> dataset_pb2.Dataset:
    """Read a dataset as it is set, by the contract alone."""
    request = dataset_pb2.PrepareDatasetRequest(source=source, name=name)
    request.settings.update(settings)
    stub = dataset_pb2_grpc.DatasetServiceStub(daemon.client.connection.channel)
    *_, last = daemon.client.connection.stream(stub.PrepareDataset, request)
    found: dataset_pb2.Dataset = last.dataset
    return found


def test_a_data_set_is_read_as_it_is_set_and_listed_once_for_each_size(daemon: RunningDaemon, tmp_path: Path) -> None:
    source = str(images(tmp_path / "shades", 10))
    (tmp_path / "shades" / "train" / "dark" / ".more.jpg.icloud").touch()
    small = prepared(daemon, source, "shades")
    large = prepared(daemon, source, "shades", size=48, fit="pad", background="black")
    assert dict(small.rows) == dict(large.rows) == {"train": 2, "test": 2}
    assert [(column.name, column.kind, list(column.shape)) for column in large.columns] == [
        ("image", "image", [48, 48, 3]),
        ("label", "label", []),
    ]
    assert dict(large.columns[0].options) == {"background": "#000000", "fit": "pad", "size": "48"}
    assert (list(large.columns[1].classes), large.columns[1].class_count) == (["dark", "light"], 2)
    assert list(large.notes) == ["1 picture is not downloaded from iCloud"]
    listed = [dataset for dataset in daemon.client.datasets() if dataset.name == "shades"]
    assert [dataset.columns[0].options["size"] for dataset in listed] == ["32", "48"]
    assert daemon.client.delete_dataset("shades") > 0
    assert not [dataset for dataset in daemon.client.datasets() if dataset.name == "shades"]


def test_a_text_is_read_as_text(daemon: RunningDaemon, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("a line of a book\n" * 20)
    book = prepared(daemon, str(tmp_path / "book.txt"), "book")
    assert [(column.name, column.kind, column.options["encoding"]) for column in book.columns] == [
        ("text", "text", "utf-8")
    ]
    assert dict(book.rows) == {"train": 1, "test": 1}
    with pytest.raises(M1Error, match="the setting size is of images") as refused:
        prepared(daemon, str(tmp_path / "book.txt"), "book", size=64)
    assert refused.value.field == "settings.size"


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"size": 4}, "settings.size"),
        ({"size": "huge"}, "settings.size"),
        ({"size": float("nan")}, "settings.size"),
        ({"fit": "stretch"}, "settings.fit"),
        ({"background": "mauve"}, "settings.background"),
        ({"siez": 64}, "settings.siez"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_its_field(
    daemon: RunningDaemon, tmp_path: Path, settings: dict[str, Any], field: str
) -> None:
    with pytest.raises(M1Error) as refused:
        prepared(daemon, str(images(tmp_path / "shades", 10)), **settings)
    assert (refused.value.reason, refused.value.field) == (Reason.INVALID_SETTING, field)


def test_a_table_is_called_so_and_refused(daemon: RunningDaemon, tmp_path: Path) -> None:
    (tmp_path / "houses.csv").write_text("a,b\n1,2\n")
    with pytest.raises(M1Error, match="is a CSV table; expected images"):
        prepared(daemon, str(tmp_path / "houses.csv"), "houses")
