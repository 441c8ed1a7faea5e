"""What is said of a user's file that is no good recipe: the file, the line in it, and what is wrong there."""

from importlib.resources import files
from pathlib import Path

import pytest
from m1.errors import ExitCode, M1Error, Reason
from m1train import own_recipe
from m1train.own_recipe import OwnFile

TEMPLATE = files("m1ctl").joinpath("recipe_template.txt").read_text()


def checked(tmp_path: Path, content: str, class_name: str = "", settings: dict[str, object] | None = None) -> str:
    path = tmp_path / "mine.py"
    path.write_text(content)
    file = OwnFile(path, "mine.py")
    declaration = own_recipe.read(file, class_name)
    own_recipe.rehearsed(file, declaration, settings or {})
    return declaration.name


def changed(old: str, new: str) -> tuple[str, int]:
    """The template with a change, and the line where it is."""
    assert old in TEMPLATE
    return TEMPLATE.replace(old, new), TEMPLATE[: TEMPLATE.index(old)].count("\n") + 1


def test_the_template_is_short_and_passes_its_check(tmp_path: Path) -> None:
    assert len(TEMPLATE.splitlines()) < 40
    assert checked(tmp_path, TEMPLATE, settings={"width": 8}) == "Mine"


LINEAR = "nn.Linear(8 * width, n_classes)"
WIDTH = 'setting(32, "Channels of the first layer.", minimum=1, maximum=4096)'


HUGE = '"A" * 50_000_000'
ODD = 'raise type("Odd", (Exception,), {"__str__": lambda self: 1 / 0})'
THE_DAEMON_S = 'import m1.errors as m; raise m.M1Error(m.Reason.INTERNAL, "I am the daemon")'


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        (
            "from torch import nn",
            "import nowhere",
            "import nowhere",
            "(ModuleNotFoundError: No module named 'nowhere')",
        ),
        ("(Recipe):", "(Recipe)", "class Mine", "it cannot be imported (SyntaxError: expected ':')"),
        ("from torch import nn", "raise SystemExit(3)", "raise", "(SystemExit: it ends the process with 3)"),
        ("from torch import nn", "raise GeneratorExit", "raise", "it cannot be imported (GeneratorExit)"),
        ("from torch import nn", "raise KeyboardInterrupt", "raise", "it cannot be imported (KeyboardInterrupt)"),
        ("from torch import nn", 'raise type("Own", (BaseException,), {})("no")', "raise", "(Own: no)"),
        ("from torch import nn", ODD, "raise", "it cannot be imported (Odd: its message cannot be read)"),
        ("from torch import nn", THE_DAEMON_S, "raise", "it cannot be imported (M1Error: I am the daemon)"),
        ("return AdamW", THE_DAEMON_S + "; AdamW", "raise", "the first step of Mine fails (M1Error: I am the daemon)"),
        ("from torch import nn", f"raise Exception({HUGE})", "raise", f"(Exception: {'A' * 286}...)"),
        ("from torch import nn", r'raise Exception("\ud800 lone")', "raise", r"(Exception: \ud800 lone)"),
        ("    # Every", f"Mine.__doc__ = {HUGE}  #", "class Mine", "of itself has 5000"),
        ('"Channels of the first layer."', HUGE, "width: int", "most of them in the setting width"),
        (
            "    # Every",
            r'Mine.__doc__ = "\ud800 lone"  #',
            "class Mine",
            r"the docstring of Mine has half a character in it (\ud800)",
        ),
        ("Channels of", r"\udfff", "width: int", r"the setting width has half a character in it (\udfff)"),
        ('"digits"', "10", "class Mine", "default_data is of the type int"),
        ('"Channels of the first layer."', "5", "width: int", "the setting width has a sentence, a unit or a choice"),
        ("maximum=4096", 'maximum="4096"', "width: int", "the setting width has a bound that is not a number"),
        ("    @dataclass(frozen=True, kw_only=True)\n", "", "class Config", "Config is no dataclass"),
        (WIDTH, "32", "width: int", "the setting width has no bounds"),
        (", maximum=4096", "", "width: int", "the setting width has only one bound"),
        ("setting(32,", "setting(0,", "width: int", "the setting width has a default that it does not take"),
        ("width: int", "width: list", "width: list", "the setting width is of the type list"),
        (LINEAR, "nn.Linear(9 * width, 10)", "class Mine", "the first step of Mine fails (RuntimeError: mat1 and mat2"),
        (LINEAR, "nn.Linear(8 * width, 7)", "def model", "training_logits gives [2, 7] for 2 images of 10 classes"),
        ("AdamW(model.parameters()", "AdamW([]", "AdamW([]", "(ValueError: optimizer got an empty parameter list)"),
        ("return AdamW", "AdamW", "def optimizer", "optimizer gives a NoneType and not a torch Optimizer"),
        ("self.config.width", "self.config.wide", "self.config.wide", "'Config' object has no attribute 'wide'"),
    ],
)
def test_what_is_wrong_is_said_with_the_file_and_the_line(
    tmp_path: Path, old: str, new: str, line: str, said: str
) -> None:
    content = changed(old, new)[0]
    with pytest.raises(M1Error) as caught:
        checked(tmp_path, content)
    assert (caught.value.reason, caught.value.exit_code) == (Reason.BAD_RECIPE, ExitCode.USAGE)
    name, number, sentence = caught.value.message.split(":", 2)
    assert name == "mine.py"
    assert said in sentence
    assert line in content.splitlines()[int(number) - 1]


def test_of_two_recipes_one_is_to_be_chosen(tmp_path: Path) -> None:
    two = TEMPLATE + '\n\nclass Other(Mine):\n    """Another one."""\n'
    with pytest.raises(M1Error, match=r"there are 2 recipes in it: choose one with mine.py:Mine or mine.py:Other"):
        checked(tmp_path, two)
    assert checked(tmp_path, two, "Other") == "Other"
    with pytest.raises(M1Error, match='there is no recipe "Othr" in it: did you mean "Other"'):
        checked(tmp_path, two, "Othr")


def test_a_file_without_a_recipe_says_what_one_is(tmp_path: Path) -> None:
    with pytest.raises(M1Error, match=r"mine.py: there is no recipe in it: .* derives from m1train.recipe.Recipe"):
        checked(tmp_path, "from m1train.recipe import Recipe\n")


def test_a_class_that_the_job_could_not_find_again_is_no_recipe_of_the_file(tmp_path: Path) -> None:
    inside = (
        "def made():\n"
        + "".join(f"    {line}\n" for line in TEMPLATE.splitlines())
        + "    return Mine\nMine = made()\n"
    )
    with pytest.raises(M1Error, match="there is no recipe in it"):
        checked(tmp_path, inside)
    assert checked(tmp_path, TEMPLATE + "\nAnother = Mine\n") == "Mine"


def test_it_is_checked_with_the_settings_that_were_given(tmp_path: Path) -> None:
    content, line = changed("width = self.config.width", "width = self.config.width // (self.config.width - 5)")
    assert checked(tmp_path, content) == "Mine"
    with pytest.raises(M1Error, match=rf"mine.py:{line}: the first step of Mine fails \(ZeroDivisionError"):
        checked(tmp_path, content, settings={"width": "5"})
    with pytest.raises(M1Error, match="the setting width="):
        checked(tmp_path, content, settings={"width": "wide"})


def test_an_optimizer_that_no_checkpoint_can_hold_is_refused(tmp_path: Path) -> None:
    content, _ = changed("return AdamW(model", "return Remembering(model")
    content += """

class Remembering(AdamW):
    def step(self, closure=None):
        for group in self.param_groups:
            self.state[group["params"][0]]["note"] = "no tensor"
"""
    with pytest.raises(M1Error, match=r"optimizer gives an optimizer with a state that is not of tensors"):
        checked(tmp_path, content)


def test_a_file_that_is_not_the_one_that_was_submitted_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "recipe.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(M1Error, match=r"mine.py: its copy in the job's directory was changed \(SHA-256"):
        own_recipe.read(OwnFile(tmp_path / "recipe.py", "mine.py"), "Mine", "0" * 64)
