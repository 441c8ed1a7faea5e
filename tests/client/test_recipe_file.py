"""What is typed for a recipe: a name, or a file of one's own; and the file to begin with."""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from m1.errors import ExitCode, M1Error, Reason
from m1.limits import RECIPE_FILE_BYTES
from m1.v1 import job_pb2
from m1ctl.commands.recipes import new
from m1ctl.sdk.requests import recipe_named
from m1d.jobs import recipe_file as recipe_files


@pytest.mark.parametrize(
    ("typed", "name", "class_name"),
    [
        ("./mine.py", "mine.py", ""),
        ("mine.py", "mine.py", ""),
        ("mine.py:Mine", "mine.py", "Mine"),
        ("{here}/mine.py:Mine", "mine.py", "Mine"),
        ("./a:b.py", "a:b.py", ""),
    ],
)
def test_a_path_or_the_end_of_its_name_makes_it_a_file(
    typed: str, name: str, class_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(b"x = 1")
    assert recipe_named(typed.format(here=tmp_path)) == job_pb2.RecipeFile(
        name=name, class_name=class_name, content=b"x = 1"
    )


@pytest.mark.parametrize("typed", ["cifar", "cifar-fast", "mine", "cifar:Mine"])
def test_all_else_is_a_name(typed: str) -> None:
    assert recipe_named(typed) == typed


def test_a_file_that_is_not_there_or_too_large_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    (tmp_path / "large.py").write_bytes(b"#" * (RECIPE_FILE_BYTES + 1))
    for name, reason in (
        ("absent.py", Reason.RECIPE_NOT_FOUND),
        ("", Reason.RECIPE_NOT_FOUND),
        ("large.py", Reason.TOO_LARGE),
    ):
        with pytest.raises(M1Error) as caught:
            recipe_named(f"{tmp_path}/{name}")
        assert caught.value.reason is reason


def test_a_new_recipe_needs_no_daemon_and_overwrites_nothing(tmp_path: Path) -> None:
    def typed_new(name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "m1ctl", "--home", str(tmp_path / "none"), "recipes", "new", name]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)

    done = typed_new("mine.py")
    assert (done.returncode, done.stdout) == (ExitCode.OK, "")
    assert done.stderr == "wrote mine.py; train it with m1ctl submit mine.py --watch\n"
    assert typed_new("my recipe.py").stderr.endswith(" train it with m1ctl submit 'my recipe.py' --watch\n")
    assert (tmp_path / "mine.py").read_text() == files("m1ctl").joinpath("recipe_template.txt").read_text()
    (tmp_path / "mine.py").write_text("mine")
    assert typed_new("mine.py").returncode == ExitCode.USAGE
    assert (tmp_path / "mine.py").read_text() == "mine"
    assert typed_new("mine").returncode == ExitCode.USAGE
    done = typed_new("absent/mine.py")
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.endswith(
        '"absent/mine.py" cannot be written: directory "absent" does not exist: create it first\n'
    )


@pytest.mark.parametrize("name", ["run\u202eyp.py", "a\nb.py", f"{'x' * 126}.py", "b\udcff.py"])
def test_a_new_recipe_has_no_name_that_a_submit_would_refuse(name: str, tmp_path: Path) -> None:
    with pytest.raises(M1Error, match="is not a valid name for a recipe's file") as refused:
        new(str(tmp_path / name))
    assert refused.value.exit_code is ExitCode.USAGE
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(M1Error, match="is not possible"):
        recipe_files.check_file(recipe_files.RecipeUpload(name.replace("\udcff", "\0"), "", b""))


def test_a_new_recipe_may_have_the_longest_name_that_a_submit_takes(tmp_path: Path) -> None:
    name = f"{'x' * 125}.py"
    new(str(tmp_path / name))
    recipe_files.check_file(recipe_files.RecipeUpload(name, "", b""))
