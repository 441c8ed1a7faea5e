import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from m1.errors import M1Error, Reason
from m1.settings import Setting, resolve
from m1train import catalogue as recipes
from m1train.randomness import Draw, initial_weights
from m1train.recipe import Moment
from m1train.recipes.cifar import CifarConfig
from m1train.recipes.cifar.network import Cifar
from m1train.task.settings import declared, resolved

DEFAULTS = {
    "epochs": 15,
    "batch_size": 128,
    "lr": 0.001,
    "weight_decay": 1e-4,
    "clip_norm": 1.0,
    "flip": 0.5,
    "rotation_degrees": 10,
    "brightness": 0.1,
    "contrast": 0.1,
    "saturation": 0.1,
    "val_images": 5000,
    "seed": 0,
    "metrics_every": 1,
    "checkpoint_every_epochs": 1,
    "checkpoint_every_s": 300,
    "checkpoint_every_steps": 0,
    "validate_every_steps": 0,
    "test_fraction": 0.1,
    "keep_checkpoints": 3,
    "fit": "squeeze",
    "background": "white",
}


def test_the_network_has_the_parameters_of_the_one_it_set_out_from() -> None:
    model = Cifar(CifarConfig()).model(10)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 1_283_914


def test_the_defaults_are_those_of_the_recipe_it_set_out_from() -> None:
    assert resolve(declared(CifarConfig), {}) == DEFAULTS


def test_every_setting_has_a_sentence_and_numbers_have_bounds() -> None:
    for setting in declared(CifarConfig):
        assert setting.summary.endswith(".")
        assert setting.kind == "str" or (setting.minimum is not None and setting.maximum is not None)


def test_describe_says_what_is_declared_and_imports_no_torch() -> None:
    code = (
        "import sys; from m1train.__main__ import main; main(['describe']); "
        "assert not {'torch', 'numpy', 'torchvision', 'sklearn'} & set(sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    recipe = next(recipe for recipe in json.loads(answer.stdout)["recipes"] if recipe["name"] == "cifar")
    assert (recipe["name"], recipe["default_data"]) == ("cifar", "cifar10")
    assert [Setting.from_json(setting) for setting in recipe["settings"]] == declared(CifarConfig)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("lr", "banana", 'the setting lr="banana" is not a number: lr takes a number, from 0 to 10'),
        ("lr", "-1", 'the setting lr="-1" is out of bounds: lr takes a number, from 0 to 10'),
        ("epochs", 0, 'the setting epochs="0" is out of bounds'),
        ("batch_size", 1, "from 2 to 65536"),
        ("flip", 1.5, "from 0 to 1"),
        ("seed", 0.5, "is not a whole number"),
        ("learning_rate", 1, 'there is no setting "learning_rate"'),
    ],
)
def test_a_setting_out_of_bounds_is_refused_in_one_sentence(name: str, value: object, sentence: str) -> None:
    with pytest.raises(M1Error, match="setting") as refused:
        resolved(CifarConfig, {name: value})
    assert refused.value.reason is Reason.INVALID_SETTING
    assert refused.value.field == f"settings.{name}"
    assert sentence in str(refused.value)


def test_a_choice_that_is_none_is_refused_with_the_choices() -> None:
    budget = Setting("budget", "str", "1min", "How long.", choices=("1min", "2min"))
    for given, problem in (("3min", "is none of its choices"), (3, "is not a text")):
        with pytest.raises(M1Error) as refused:
            resolve([budget], {"budget": given})
        assert str(refused.value) == f'the setting budget="{given}" {problem}: budget takes one of 1min, 2min'


def test_an_unknown_recipe_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(M1Error, match='there is no recipe "cifer": did you mean "cifar"'):
        recipes.declaration("cifer")


def test_the_learning_rate_falls_along_a_cosine_over_the_epochs() -> None:
    recipe = Cifar(CifarConfig(epochs=15))
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.001)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=15)
    for epoch in range(15):
        assert 0.001 * recipe.rate(Moment(epoch * 7, 7, 15)) == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        schedule.step()


def test_dropout_is_drawn_by_sample_so_a_batch_may_be_split() -> None:
    recipe = Cifar(CifarConfig())
    with initial_weights(0):
        model = recipe.model(10)
    model.eval()  # BatchNorm by its running statistics, so that samples do not meet
    images = torch.arange(8 * 32 * 32 * 3, dtype=torch.int64).mul(7919).remainder(256).to(torch.uint8)
    images = images.reshape(8, 32, 32, 3)
    samples = np.arange(100, 108, dtype=np.uint64)

    def logits(part: slice) -> torch.Tensor:
        draw = Draw(1, 2, samples[part])
        with torch.inference_mode():
            return torch.as_tensor(model(recipe.training_inputs(images[part], draw), draw))

    whole = logits(slice(0, 8))
    assert torch.allclose(whole, torch.cat((logits(slice(0, 3)), logits(slice(3, 8)))), atol=1e-5)
    with torch.inference_mode():
        assert not torch.allclose(whole, model(recipe.evaluation_inputs(images)), atol=1e-3)


def test_evaluation_draws_nothing() -> None:
    recipe = Cifar(CifarConfig())
    model = recipe.model(3).eval()
    inputs = recipe.evaluation_inputs(torch.zeros(2, 32, 32, 3, dtype=torch.uint8))
    with torch.inference_mode():
        assert torch.equal(model(inputs), model(inputs))


def test_a_clip_norm_of_zero_clips_nothing() -> None:
    assert Cifar(CifarConfig(clip_norm=0)).clip_norm == math.inf
