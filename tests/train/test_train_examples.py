"""The recipes of examples/recipes/: each is tried as a submit tries it, and trains as written, in a real process."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from m1.jobdir import Profile, RecipeFile, Spec, recipe_path, write_spec
from m1.journal import Exited, Metrics, Result
from m1train.task.own_file import OwnFile, read, rehearsed
from PIL import Image, ImageDraw
from training_process import Job, exited

EXAMPLES = Path(__file__).parents[2] / "examples" / "recipes"


def houses(folder: Path) -> Path:
    path = folder / "houses.csv"
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["rooms", "age", "price"])
        rows.writerows([rooms, age, 40 * rooms - age] for rooms in range(1, 9) for age in range(0, 50, 4))
    return path


def pairs(folder: Path) -> Path:
    for name in ("images", "masks"):
        (folder / "pairs" / name).mkdir(parents=True)
    for i in range(24):
        image, mask = Image.new("RGB", (40, 30), "navy"), Image.new("L", (40, 30))
        box = (i, i % 9, i + 12, i % 9 + 15)
        ImageDraw.Draw(image).rectangle(box, fill="orange")
        ImageDraw.Draw(mask).rectangle(box, fill=255)
        image.save(folder / "pairs" / "images" / f"{i}.png")
        mask.save(folder / "pairs" / "masks" / f"{i}.png")
    return folder / "pairs"


def frequencies(folder: Path) -> Path:
    path = folder / "frequencies.txt"
    path.write_text("\n".join(str(1 + i / 16) for i in range(64)))
    return path


CASES = {
    "csv_regression.py": (houses, {"epochs": 20, "batch_size": 16}, "mae"),
    "segmentation.py": (pairs, {"epochs": 2, "batch_size": 4, "size": 24, "width": 4}, "iou"),
    "torch_dataset.py": (frequencies, {"epochs": 3, "batch_size": 8}, "error"),
    "f1.py": (None, {"epochs": 1, "batch_size": 64, "positive": 7}, "f1"),
    "fine_tune.py": (None, {"epochs": 1, "batch_size": 64}, "accuracy"),
}


def test_every_example_is_run_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(CASES)


@pytest.mark.parametrize("name", list(CASES))
def test_an_example_passes_the_check_of_a_submit_and_trains_as_it_is(name: str, tmp_path: Path) -> None:
    make, settings, headline = CASES[name]
    assert len((EXAMPLES / name).read_text().splitlines()) <= 60
    data = str(make(tmp_path)) if make else "digits"
    file = OwnFile(EXAMPLES / name, name)
    declared = read(file)
    rehearsed(file, declared, settings, data)

    directory = tmp_path / "job"
    directory.mkdir()
    content = (EXAMPLES / name).read_bytes()
    recipe_path(directory).write_bytes(content)
    sha256 = declared.identity.partition("@")[2]
    write_spec(
        directory,
        Spec(
            job_id="j1",
            recipe=declared.name,
            data=data,
            data_root=str(tmp_path / "cache"),
            settings=settings,
            profile=Profile(),
            recipe_file=RecipeFile(name, declared.name, sha256),
        ),
    )
    records = Job(directory).run()

    assert exited(records) == Exited("succeeded", step=exited(records).step), (directory / "log").read_text()
    tested = [r for r in records if isinstance(r, Metrics) and f"test/{headline}" in r.values]
    assert len(tested) == 1
    assert all(math.isfinite(value) for value in tested[0].values.values())
    assert declared.metrics[0].key == headline
    assert bool([r for r in records if isinstance(r, Result)]) == (name in {"f1.py", "fine_tune.py"})


def test_the_regression_learns_what_its_table_says(tmp_path: Path) -> None:
    data = houses(tmp_path)
    prices = np.loadtxt(data, delimiter=",", skiprows=1)[:, -1]
    directory = tmp_path / "job"
    directory.mkdir()
    recipe_path(directory).write_bytes((EXAMPLES / "csv_regression.py").read_bytes())
    declared = read(OwnFile(EXAMPLES / "csv_regression.py", "csv_regression.py"))
    file = RecipeFile("csv_regression.py", declared.name, declared.identity.partition("@")[2])
    settings = {"epochs": 60, "batch_size": 16}
    spec = Spec(
        job_id="j1",
        recipe=declared.name,
        data=str(data),
        data_root=str(tmp_path / "cache"),
        settings=settings,
        profile=Profile(),
        recipe_file=file,
    )
    write_spec(directory, spec)
    records = Job(directory).run()
    (tested,) = [r for r in records if isinstance(r, Metrics) and "test/mae" in r.values]
    assert tested.values["test/mae"] < 0.3 * np.abs(prices - prices.mean()).mean()
