"""What is said of a user's file that is no good recipe: the file, the line in it, and what is wrong there."""

from contextlib import nullcontext
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import pytest
from m1.errors import ExitCode, M1Error, Reason
from m1train import catalogue as recipes
from m1train.engine.examples import examples, needs_of
from m1train.engine.rehearsal import rehearse
from m1train.task import own_file as own_recipe
from m1train.task.own_file import OwnFile

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


def test_a_relative_path_in_a_file_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(M1Error, match=r"No such file or directory: 'table.csv'") as caught:
        checked(tmp_path, TEMPLATE.replace("class Mine", 'OPENED = open("table.csv")\n\n\nclass Mine'))
    assert caught.value.hint.startswith("only the file itself is sent, and it runs elsewhere: use an absolute path")


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
        ("(Classifier):", "(Classifier)", "class Mine", "it cannot be imported (SyntaxError: expected ':')"),
        ("from torch import nn", "raise SystemExit(3)", "raise", "(SystemExit: it ends the process with 3)"),
        ("from torch import nn", "raise GeneratorExit", "raise", "it cannot be imported (GeneratorExit)"),
        ("from torch import nn", "raise KeyboardInterrupt", "raise", "it cannot be imported (KeyboardInterrupt)"),
        ("from torch import nn", 'raise type("Own", (BaseException,), {})("no")', "raise", "(Own: no)"),
        ("from torch import nn", ODD, "raise", "it cannot be imported (Odd: its message cannot be read)"),
        ("from torch import nn", THE_DAEMON_S, "raise", "it cannot be imported (M1Error: I am the daemon)"),
        ("return AdamW", THE_DAEMON_S + "; AdamW", "raise", "the first step of Mine fails (M1Error: I am the daemon)"),
        ("from torch import nn", f"raise Exception({HUGE})", "raise", f"(Exception: {'A' * 286}...)"),
        ("from torch import nn", r'raise Exception("\ud800 lone")', "raise", r"(Exception: \ud800 lone)"),
        ("    # Also", f"Mine.__doc__ = {HUGE}  #", "class Mine", "of itself has 5000"),
        ('"Channels of the first layer."', HUGE, "width: int", "most of them in the setting width"),
        (
            "    # Also",
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
        ("return AdamW", "AdamW", "def optimizer", "optimizer gives None and not a torch Optimizer"),
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
    with pytest.raises(
        M1Error, match=r"mine.py: there is no recipe in it: .* derives from Classifier or Task of m1train"
    ):
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


IMPORTS = "import math, random\nimport numpy as np\nimport torch\nfrom torch import nn"
INEXACT = {
    "torch's generator in the inputs": """
    def training_inputs(self, images, draw):
        return self.evaluation_inputs(images) + torch.randn(1)
""",
    "NumPy's generator in the inputs": """
    def training_inputs(self, images, draw):
        return self.evaluation_inputs(images) * float(np.random.rand())
""",
    "Python's generator in the inputs": """
    def training_inputs(self, images, draw):
        return self.evaluation_inputs(images) * random.random()
""",
    "a counter on the recipe": """
    steps = 0
    def training_inputs(self, images, draw):
        self.steps += 1
        return self.evaluation_inputs(images) * self.steps
""",
    "what initialise puts on the recipe, with a default": """
    scale = 1.0
    def initialise(self, model, images):
        self.scale = float(images.float().std())
    def training_inputs(self, images, draw):
        return self.evaluation_inputs(images) / self.scale
""",
    "a scheduler on the recipe": """
    def optimizer(self, model):
        optimizer = AdamW(model.parameters(), lr=self.config.lr)
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        return optimizer
    def set_rates(self, optimizer, at):
        self.scheduler.step()
""",
    "an average of the weights that is evaluated": """
    shadow = None
    def training_logits(self, model, inputs, draw):
        head = model[-1].weight.detach().clone()
        self.shadow = head if self.shadow is None else 0.9 * self.shadow + 0.1 * head
        return model(inputs)
    def evaluation_logits(self, model, inputs):
        return model[:-1](inputs) @ self.shadow.T
""",
    "a buffer that no checkpoint has": """
    def training_logits(self, model, inputs, draw):
        if not hasattr(model, "seen"):
            model.register_buffer("seen", torch.zeros(()), persistent=False)
        model.seen += 1
        return model(inputs) * model.seen
""",
    "state in the optimizer's groups": """
    def optimizer(self, model):
        return Counting(model.parameters(), lr=self.config.lr)

class Counting(AdamW):
    def step(self, closure=None):
        for group in self.param_groups:
            group["k"] = group.get("k", 0) + 1
            group["lr"] /= group["k"]
        super().step()
""",
    "a layer that is frozen until the first evaluation": """
    def model(self, n_classes):
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3072).eval(), nn.Linear(3072, n_classes))
""",
    "random views in the evaluation": """
    def evaluation_logits(self, model, inputs):
        return model(inputs + torch.randn(1))
""",
}


@pytest.mark.parametrize("body", INEXACT.values(), ids=INEXACT)
def test_a_recipe_that_would_not_resume_exactly_is_refused(tmp_path: Path, body: str) -> None:
    content = TEMPLATE.replace("from torch import nn", IMPORTS) + body
    with pytest.raises(M1Error, match=r"mine.py:\d+: Mine does not resume exactly: ") as caught:
        checked(tmp_path, content)
    line = int(caught.value.message.split(":")[1])
    assert content.splitlines()[line - 1].startswith("class Mine")
    assert "from `draw`, and keep what changes in the model's parameters and buffers" in caught.value.hint


def test_what_differs_after_a_resume_is_named(tmp_path: Path) -> None:
    body = INEXACT["state in the optimizer's groups"]
    with pytest.raises(M1Error, match=r'one step later "0.weight" is not what it is without a pause'):
        checked(tmp_path, TEMPLATE + body)


EXACT = {
    "torch, NumPy and Python draw in the forward pass": """
    def training_logits(self, model, inputs, draw):
        return model(inputs + torch.randn_like(inputs) + np.random.rand() + random.random())
""",
    "what initialise puts into the model": """
    def initialise(self, model, images):
        with torch.no_grad():
            model[0].weight.mul_(images.float().std())
""",
    "a loss that is not a number": """
    def loss(self, logits, labels):
        return super().loss(logits, labels) * math.nan
""",
    "a config that the recipe completes": """
    def __init__(self, config):
        from dataclasses import replace
        super().__init__(replace(config, epochs=1, lr=config.lr * config.batch_size / 128))
""",
    "weight_norm, whose models cannot be copied": """
    def model(self, n_classes):
        return nn.Sequential(nn.Flatten(), torch.nn.utils.weight_norm(nn.Linear(3072, n_classes)))
""",
    "constants that no checkpoint has": """
    def model(self, n_classes):
        model = nn.Sequential(nn.Flatten(), nn.Linear(3072, n_classes))
        model.register_buffer("turns", torch.polar(torch.ones(4), torch.arange(4.0)), persistent=False)
        model.register_buffer("none", torch.zeros(0), persistent=False)
        return model
""",
}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("body", EXACT.values(), ids=EXACT)
def test_a_recipe_that_resumes_exactly_passes(tmp_path: Path, body: str) -> None:
    assert checked(tmp_path, TEMPLATE.replace("from torch import nn", IMPORTS) + body) == "Mine"


@pytest.mark.parametrize("name", ["cifar", "cifar-fast"])
def test_the_project_s_own_recipes_pass_the_check_too(name: str) -> None:
    declaration = recipes.DECLARATIONS[name]
    module, _, implementation = declaration.implementation.partition(":")
    recipe = getattr(import_module(module), implementation)
    rehearse(recipe, declaration.config(), lambda task: examples(task, needs_of(task), 64), nullcontext)


@pytest.mark.parametrize(
    ("body", "line", "said"),
    [
        (
            """
    def initialise(self, model, images):
        self.mean = images.float().mean()
    def training_inputs(self, images, draw):
        return self.evaluation_inputs(images) - self.mean
""",
            "- self.mean",
            "the first step of Mine after a resume, which does not call initialise, fails (AttributeError: 'Mine'",
        ),
        (
            """
    def rate(self, at):
        return 1 / (1 - at.step)
""",
            "1 / (1 - at.step)",
            "the second step of Mine fails (ZeroDivisionError: division by zero)",
        ),
    ],
)
def test_what_fails_only_later_is_said_with_its_line(tmp_path: Path, body: str, line: str, said: str) -> None:
    with pytest.raises(M1Error) as caught:
        checked(tmp_path, TEMPLATE + body)
    _, number, sentence = caught.value.message.split(":", 2)
    assert said in sentence
    assert line in (TEMPLATE + body).splitlines()[int(number) - 1]


@pytest.mark.parametrize(
    ("made", "dtype"),
    [("torch.ones(4, dtype=torch.complex64)", "complex64"), ("torch.zeros(4, dtype=torch.uint16)", "uint16")],
)
def test_a_tensor_that_no_checkpoint_can_hold_is_refused_by_its_name(tmp_path: Path, made: str, dtype: str) -> None:
    body = f"""
    def model(self, n_classes):
        model = nn.Sequential(nn.Flatten(), nn.Linear(3072, n_classes))
        model.register_buffer("turns", {made})
        return model
"""
    content = TEMPLATE.replace("from torch import nn", IMPORTS) + body
    with pytest.raises(M1Error, match=rf'model keeps "turns" as torch.{dtype}: no checkpoint can hold it') as caught:
        checked(tmp_path, content)
    assert "persistent=False" in caught.value.hint
    content = (
        content.replace("nn.Linear(3072", "Noted(3072")
        + """
class Noted(nn.Linear):
    def get_extra_state(self): return {}
    def set_extra_state(self, state): pass
"""
    )
    with pytest.raises(M1Error, match=r'model keeps "1._extra_state", a dict: no checkpoint can hold it'):
        checked(tmp_path, content)


@pytest.mark.parametrize(
    ("declared", "said", "hint"),
    [
        (
            'metrics_every: int = setting(0, "How often.", minimum=0, maximum=9)',
            'the setting metrics_every="0" is out of bounds for the engine',
            "metrics_every takes a whole number (steps), from 1 to 1000000",
        ),
        (
            'val_images: int = setting(-5, "Held out.", minimum=-9, maximum=9)',
            'the setting val_images="-5" is out of bounds for the engine',
            "from 0 to 10000000",
        ),
        (
            'keep_checkpoints: int = setting(0, "How many.", minimum=0, maximum=9)',
            'the setting keep_checkpoints="0" is out of bounds for the engine',
            "from 1 to 10000",
        ),
        (
            'epochs: float = setting(2.0, "How long.", minimum=1, maximum=9)',
            "epochs is 2.0, of the type float, and not of the type int",
            "put it right",
        ),
    ],
)
def test_the_engine_s_own_settings_keep_the_engine_s_bounds(
    tmp_path: Path, declared: str, said: str, hint: str
) -> None:
    content = TEMPLATE.replace("        width: int", f"        {declared}\n        width: int")
    with pytest.raises(M1Error) as caught:
        checked(tmp_path, content)
    _, number, sentence = caught.value.message.split(":", 2)
    assert (said in sentence, hint in caught.value.hint) == (True, True), caught.value
    assert declared in content.splitlines()[int(number) - 1]
    # What counts is what the recipe makes of it.
    name, value = declared.partition(":")[0], 3
    completes = f"""
    def __init__(self, config):
        from dataclasses import replace
        super().__init__(replace(config, {name}={value}))
"""
    assert checked(tmp_path, content + completes) == "Mine"
