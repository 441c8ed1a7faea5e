"""What is said of a task of one's own that is no good one, before it is queued: by a rehearsal on what it reads."""

from pathlib import Path

import pytest
from m1.errors import M1Error, Reason
from m1train.task import own_file as own_recipe
from m1train.task.own_file import OwnFile

TASK = '''
import numpy as np
import torch
from m1train.recipe import LOSS, Metric, Table, Task, Text
from torch import nn
from torch.utils.data import Dataset


class Mine(Task):
    """The smallest task."""

    metrics = (LOSS, Metric("mae", "", "less", "Mean absolute error."))

    def read(self, source):
        x = np.linspace(0, 1, 24, dtype=np.float32).reshape(8, 3)
        return {"train": {"x": x, "y": x.sum(1, keepdims=True)}}

    def network(self, info):
        return nn.Linear(3, 1)

    def optimizer(self, model):
        return torch.optim.AdamW(model.parameters(), lr=0.01)

    def training_loss(self, model, batch, draw):
        error = model(batch["x"]) - batch["y"]
        return error.square().mean(), {"mae": error.abs().mean()}

    def evaluation(self, info, split):
        return Judged()


class Judged:
    total, n = 0.0, 0

    def add(self, model, batch):
        self.total += float((model(batch["x"]) - batch["y"]).square().sum())
        self.n += batch.size

    def metrics(self):
        return {"loss": self.total / self.n}

    def results(self, model):
        return []
'''


def checked(tmp_path: Path, content: str) -> str:
    path = tmp_path / "mine.py"
    path.write_text(content)
    file = OwnFile(path, "mine.py")
    declaration = own_recipe.read(file)
    assert declaration.reads_data
    own_recipe.rehearsed(file, declaration, {}, data=str(tmp_path))
    return declaration.name


def changed(old: str, new: str) -> str:
    assert old in TASK
    return TASK.replace(old, new)


READS = TASK[TASK.index("        x = np.linspace") : TASK.index("    def network")]
X = "np.zeros((8, 3), np.float32)"


def test_the_smallest_task_passes(tmp_path: Path) -> None:
    assert checked(tmp_path, TASK) == "Mine"


@pytest.mark.parametrize(
    "lr", ["torch.tensor(0.01), fused=True", "torch.tensor(0.01), foreach=False"], ids=["fused", "one by one"]
)
def test_a_learning_rate_may_be_a_tensor(tmp_path: Path, lr: str) -> None:
    assert checked(tmp_path, changed("lr=0.01", f"lr={lr}")) == "Mine"


def test_what_a_step_measured_may_depend_on_the_weights_still(tmp_path: Path) -> None:
    assert checked(tmp_path, changed("error.abs().mean()}", "(error.abs().mean() + 1) - 1}")) == "Mine"


@pytest.mark.parametrize(
    ("old", "new", "where", "said"),
    [
        (
            '{"mae": error.abs().mean()}',
            '{"rmse": error.abs().mean()}',
            "def training_loss",
            'training_loss measures "rmse", which is none of its declared metrics',
        ),
        (
            '{"mae": error.abs().mean()}',
            '{"mae": error.abs()}',
            "def training_loss",
            'training_loss measures "mae" as [2, 1] and not as one number',
        ),
        (
            '{"mae": error.abs().mean()}',
            '{"mae": "low"}',
            "def training_loss",
            'measures "mae" as a str and not as one',
        ),
        ('{"mae": error.abs().mean()}', "None", "def training_loss", "does not give the loss and a mapping of other"),
        ('{"loss": self.total / self.n}', "None", "def evaluation", "gives None for its metrics and not a mapping"),
        (
            '{"loss": self.total / self.n}',
            '{"loss": "low"}',
            "def evaluation",
            'measures "loss" as a str and not as one',
        ),
        ("        return []", "        return None", "def evaluation", "gives results that are not a list of Table,"),
        ("        return Judged()", "        return None", "def evaluation", "gives None without add and metrics and"),
        (
            "    def optimizer",
            "    def rate(self, at):\n        return float('nan')\n\n    def optimizer",
            "def rate",
            "rate makes the learning rate nan, which is not a finite number",
        ),
        (
            "    def optimizer",
            "    def facts(self, columns):\n        return {1: torch.ones(2)}\n\n    def optimizer",
            "def facts",
            "facts gives what JSON does not hold as it is, and a checkpoint keeps it so",
        ),
        (
            '{"loss": self.total / self.n}',
            '{"mae": self.total / self.n}',
            "def evaluation",
            'evaluation measures no "loss"',
        ),
        (
            '{"loss": self.total / self.n}',
            '{"loss": self.total / self.n, "accuracy": 1.0}',
            "def evaluation",
            'evaluation measures "accuracy", which is none of its declared metrics',
        ),
        (
            '(LOSS, Metric("mae", "", "less", "Mean absolute error."))',
            '(Metric("mae", "", "less", "Mean absolute error."), LOSS)',
            "def evaluation",
            'evaluation measures no "mae"',
        ),
        (
            "        return []",
            '        return [Text("My Poem", "", "")]',
            "def evaluation",
            'evaluation gives a result called "My Poem"',
        ),
        (
            "        return []",
            '        return [Table("t", "", ("x",), [(torch.ones(2),)])]',
            "class Mine",
            "the first step of Mine fails (TypeError: Object of type Tensor is not JSON serializable)",
        ),
        ("error.square().mean(), {", "error.square(), {", "def training_loss", "training_loss gives [2, 1] and not a"),
        (
            "error.square().mean(), {",
            "torch.zeros(()), {",
            "def training_loss",
            "training_loss gives a number that does not depend on any parameter that is trained",
        ),
        ("return nn.Linear(3, 1)", "return 3", "def network", "network gives an int and not a torch.nn.Module"),
        (
            "AdamW(model.parameters(), lr=0.01)",
            "AdamW(nn.Linear(3, 1).parameters(), lr=0.01)",
            "def optimizer",
            "optimizer gives an optimizer of parameters that the model has not",
        ),
        (
            "AdamW(model.parameters(), lr=0.01)",
            "SGD(model.parameters(), lr=torch.ones(2))",
            "SGD(",
            "the first step of Mine fails (",
        ),
        # What is no data.
        (READS, "        return None\n\n", "def read", 'read gives no mapping with "train" and perhaps "test"'),
        (READS, f"        return {{'x': {X}}}\n\n", "def read", 'read gives no mapping with "train"'),
        (
            READS,
            f"        return {{'train': {{'x': {X}}}, 'val': {{}}}}\n\n",
            "def read",
            'read gives no mapping with "train"',
        ),
        (READS, "        return {'train': [1, 2, 3]}\n\n", "def read", "neither arrays by name nor a torch Dataset"),
        (READS, "        return {'train': {}}\n\n", "def read", "neither arrays by name nor a torch Dataset"),
        (
            READS,
            "        return {'train': {'x': [1, 2]}}\n\n",
            "def read",
            "neither arrays by name nor a torch Dataset",
        ),
        (
            READS,
            f"        return {{'train': {{'x': {X}, 'y': {X}[:4]}}}}\n\n",
            "def read",
            "read gives arrays of different lengths for \"train\": {'x': 8, 'y': 4}",
        ),
        (
            READS,
            f"        return {{'train': {{'x': {X}}}, 'test': {{'x': {X}[:0]}}}}\n\n",
            "def read",
            'read gives no rows for "test"',
        ),
        (
            READS,
            "        return {'train': {'x': np.array(3.0)}}\n\n",
            "def read",
            'read gives "x" as a single number, and not as an array of rows',
        ),
        (
            READS,
            "        return {'train': {'x': np.array([{}, {}])}}\n\n",
            "def read",
            'read gives "x" as an array of object, of which no tensor can be made',
        ),
        (
            READS,
            "        return {'train': {'x': np.array(['a', 'b'])}}\n\n",
            "def read",
            'read gives "x" as an array of str32, of which no tensor can be made',
        ),
        (
            READS,
            "        return {'train': Dataset()}\n\n",
            "def read",
            'read gives a Dataset without a length for "train"',
        ),
        (
            READS,
            f"        return {{'train': {{'x': {X}[:3]}}}}\n\n",
            "def read",
            "its data give 3 samples to train on",
        ),
        (READS, "        return open(source / 'absent')\n\n", "return open(source", "(FileNotFoundError: "),
    ],
)
def test_what_is_wrong_is_said_with_the_line_of_it(tmp_path: Path, old: str, new: str, where: str, said: str) -> None:
    content = changed(old, new)
    with pytest.raises(M1Error) as caught:
        checked(tmp_path, content)
    assert caught.value.reason is Reason.BAD_RECIPE
    name, number, sentence = caught.value.message.split(":", 2)
    assert name == "mine.py"
    assert said in sentence
    assert where in content.splitlines()[int(number) - 1]


DRAWS = {
    "torch": "torch.rand(1)",
    "NumPy": "torch.tensor([np.random.rand()], dtype=torch.float32)",
    "Python": "torch.tensor([__import__('random').random()])",
}


@pytest.mark.parametrize("drawn", DRAWS.values(), ids=DRAWS)
def test_a_dataset_may_draw_from_any_generator(tmp_path: Path, drawn: str) -> None:
    dataset = f"""

class Drawn(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        x = torch.ones(3) * {drawn}
        return {{"x": x, "y": x.sum()[None]}}
"""
    assert checked(tmp_path, changed(READS, "        return {'train': Drawn()}\n\n") + dataset) == "Mine"


def test_a_dataset_that_counts_what_it_gave_is_refused(tmp_path: Path) -> None:
    dataset = """

class Counting(Dataset):
    given = 0

    def __len__(self):
        return 8

    def __getitem__(self, index):
        self.given += 1
        x = torch.ones(3) * self.given
        return {"x": x, "y": x.sum()[None]}
"""
    with pytest.raises(M1Error, match="Mine does not resume exactly"):
        checked(tmp_path, changed(READS, "        return {'train': Counting()}\n\n") + dataset)
