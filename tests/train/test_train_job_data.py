"""What a job says of its data, how it is split up, and a log that has nothing else in it."""

import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from m1.columns import IMAGES_OF_32, normalised
from m1.jobdir import checkpoints_path
from m1.journal import Metrics, Notice
from m1train.catalogue import DECLARATIONS
from m1train.task.settings import resolved
from training_process import Job, ended, exited


def test_a_job_says_how_its_data_were_read_and_its_log_warns_of_nothing(
    tmp_path: Path, own_images: Path, data_root: Path
) -> None:
    shutil.copytree(own_images / "test", own_images / "Validation")
    shutil.copy(own_images / "train" / "0" / "0.png", own_images / "train" / "1" / "again.png")
    (own_images / "README.md").write_text("hello")
    job = Job.new(tmp_path / "job", str(own_images), data_root, epochs=1)
    records = job.run()
    assert ended(records, "succeeded"), exited(records)
    told = [(r.severity, r.message) for r in records if isinstance(r, Notice)]
    assert ("info", "the data are read as images of 32 px (squeeze) and a label for each") in told
    assert ("info", 'the folder "Validation" is taken as the validation split') in told
    assert ("info", '1 file that is not a picture was skipped ("README.md")') in told
    assert ("warning", "1 image is in more than one class") in told
    assert not any("held out" in message or "set apart" in message for _, message in told)
    log = (job.directory / "log").read_text()
    assert "31 samples to train on, 10 to validate on, 10 to test on" in log
    assert "step 2: val/loss" in log
    assert "of 10 samples" in log
    assert not [line for line in log.splitlines() if "Warning" in line or not line.startswith("20")], log
    assert any("val/accuracy" in r.values for r in records if isinstance(r, Metrics))


def test_without_a_validation_the_data_s_own_is_left_alone(tmp_path: Path, own_images: Path, data_root: Path) -> None:
    (own_images / "test").rename(own_images / "val")
    shutil.copytree(own_images / "val", own_images / "test")
    records = Job.new(tmp_path / "job", str(own_images), data_root, epochs=1, val_images=0).run()
    assert ended(records, "succeeded"), exited(records)
    assert not any("val/loss" in r.values for r in records if isinstance(r, Metrics))


@pytest.mark.parametrize("recipe", ["cifar", "cifar-fast"])
def test_small_images_are_read_as_0_1_0_did_unless_they_are_set_otherwise(recipe: str) -> None:
    declared = DECLARATIONS[recipe]

    def read_as(**settings: str) -> object:
        config = resolved(declared.config, settings)
        return normalised([need.with_settings(vars(config)) for need in declared.needs])

    assert read_as() == IMAGES_OF_32
    options = read_as(fit="crop", background="black")[0].options  # type: ignore[index]
    assert options == {"background": "#000000", "fit": "crop", "size": "32"}


def test_a_thread_that_a_recipe_has_left_keeps_no_machine(tmp_path: Path, images: Path, data_root: Path) -> None:
    waits = "import threading\nthreading.Thread(target=threading.Event().wait, name='forever').start()\n"
    recipe = files("m1ctl").joinpath("recipe_template.txt").read_text() + waits
    job = Job.of_file(tmp_path / "job", recipe, images, data_root, epochs=1, width=4)
    assert ended(job.run(), "succeeded")
    assert "not waited for: the threads forever" in (job.directory / "log").read_text()


@pytest.mark.parametrize("settings", [{}, {"batch_size": 100, "epochs": 2}])
def test_a_job_that_begins_where_it_would_end_is_refused_before_it_trains(
    tmp_path: Path, images: Path, data_root: Path, undisturbed: Job, settings: dict[str, Any]
) -> None:
    job = Job.new(tmp_path / "job", str(images), data_root, **settings)
    shutil.copytree(checkpoints_path(undisturbed.directory), checkpoints_path(job.directory))
    records = job.run()
    failed = exited(records)
    assert (failed.outcome, failed.code) == ("failed", "INVALID_SETTING")
    end = 2 * (1 if settings else 5)
    assert f"nothing is left to train: the checkpoint stands at step 10, and 2 epochs of {end // 2}" in failed.message
    assert failed.message.endswith(f"steps end at step {end}")
    assert failed.hint == f"submit it with at least {10 // (end // 2) + 1} epochs"
    assert not any(isinstance(record, Metrics) for record in records)
