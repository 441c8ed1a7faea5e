"""What protobuf refuses, as a sentence that names the field."""

import os
from pathlib import Path
from typing import Any

import pytest
from m1.errors import ExitCode, M1Error, Reason
from m1.limits import MOST_RETRIES, PRIORITY
from m1.v1 import job_pb2, metric_pb2, recipe_pb2
from m1ctl import connect
from m1ctl.sdk.requests import absolute_paths, build, build_settings

LARGE = 99_999_999_999


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"priority": LARGE},
            (f"priority={LARGE} is out of bounds: priority takes a whole number from {-PRIORITY} to {PRIORITY}"),
        ),
        (
            {"retries": LARGE},
            f"retries={LARGE} is out of bounds: retries takes a whole number from 0 to {MOST_RETRIES}",
        ),
        ({"priority": 1.5}, "priority=1.5 cannot be sent: priority takes a whole number from -1000 to 1000"),
        ({"recipe": 3}, "recipe=3 cannot be sent: recipe takes text in UTF-8"),
        ({"data": "\udcff"}, 'data="\udcff" cannot be sent: data takes text in UTF-8'),
        ({"profile": 3}, "profile=3 cannot be sent: profile takes a Profile"),
    ],
)
def test_a_value_that_no_message_holds_is_a_sentence_with_field_value_and_bounds(
    given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(M1Error) as caught:
        build(job_pb2.JobSpec, "spec.", **{"recipe": "cifar"} | given)
    assert str(caught.value) == sentence
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert caught.value.exit_code == ExitCode.USAGE
    assert caught.value.field == f"spec.{next(iter(given))}"


def test_a_number_of_points_has_bounds_too() -> None:
    with pytest.raises(M1Error, match=r"max_points=-1 is out of bounds: .* from 0 to 10000"):
        build(metric_pb2.GetMetricSeriesRequest, name="train/loss", max_points=-1)


@pytest.mark.parametrize("value", [object(), 10**400, "\udcff"])
def test_a_setting_that_no_message_holds_is_named(value: object) -> None:
    with pytest.raises(M1Error, match="it takes a number, true, false or text") as caught:
        build_settings({"epochs": 3, "lr": value})
    assert caught.value.field == "settings.lr"


def test_the_sdk_refuses_before_it_asks_a_daemon() -> None:
    with connect("/tmp/m1-no-such-home") as m1, pytest.raises(M1Error, match="priority="):
        m1.submit("cifar", priority=LARGE)


def test_a_relative_path_is_made_absolute_where_the_recipe_takes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pth").touch()
    (tmp_path / "none").touch()
    asked: list[str] = []

    def declared() -> list[recipe_pb2.Setting]:
        asked.append("asked")
        init = recipe_pb2.Setting(name="init", kind="path", choices=["none"])
        return [init, recipe_pb2.Setting(name="prompt", kind="str")]

    for value in ("w.pth", "./w.pth", f"../{tmp_path.name}/w.pth", str(tmp_path / "w.pth")):
        assert absolute_paths({"init": value, "lr": "1"}, declared) == {"init": str(tmp_path / "w.pth"), "lr": "1"}
    assert absolute_paths({"init": "~/new"}, declared)["init"] == os.path.expanduser("~/new")
    assert absolute_paths({"init": "none", "prompt": "./w.pth"}, declared) == {"init": "none", "prompt": "./w.pth"}
    asked.clear()
    assert absolute_paths({"init": "torchvision", "lr": "0.1"}, declared) == {"init": "torchvision", "lr": "0.1"}
    assert asked == []
