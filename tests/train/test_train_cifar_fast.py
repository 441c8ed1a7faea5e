"""cifar-fast: its parts do what their names say, and it resumes bit for bit as any recipe does."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from m1.jobdir import Want
from m1train.randomness import Draw, initial_weights
from m1train.recipe import Moment
from m1train.recipes.cifar_fast import BUDGETS, CifarFastConfig
from m1train.recipes.cifar_fast.muon import Muon, orthogonalised
from m1train.recipes.cifar_fast.network import CifarFast, CifarFastNetwork, whitening_filters
from m1train.task.settings import resolved
from torch.nn import functional
from training_process import Job, assert_same, trained


def recipe(**settings: object) -> CifarFast:
    return CifarFast(resolved(CifarFastConfig, settings))


def pictures(n: int) -> torch.Tensor:
    """Smooth images [n, 32, 32, 3] uint8."""
    t = torch.linspace(0, 5, 32)
    waves = [torch.sin(t * (1 + i % 5) + i)[:, None] * torch.cos(t * (1 + i % 3))[None, :] for i in range(3 * n)]
    return ((torch.stack(waves) + 1) * 127).to(torch.uint8).reshape(n, 3, 32, 32).permute(0, 2, 3, 1).contiguous()


def test_whitened_patches_are_uncorrelated_and_of_one_variance() -> None:
    images = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    images = (images + 0.5 * images.roll(1, -1)) * torch.tensor([1.0, 3.0, 2.0])[:, None, None]
    answers = functional.conv2d(images, whitening_filters(images))
    assert torch.allclose(answers[:, :12], -answers[:, 12:])
    flat = answers[:, :12].transpose(0, 1).reshape(12, -1)
    assert torch.allclose(flat @ flat.T / flat.shape[1], torch.eye(12), atol=0.02)


def test_the_frozen_layers_learn_nothing_and_everything_else_does() -> None:
    chosen = recipe(budget="1min")
    with initial_weights(3):
        model = chosen.model(10)
    chosen.initialise(model, pictures(16))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = chosen.optimizer(model)
    draw = Draw(0, 0, np.arange(8, dtype=np.uint64))
    logits = chosen.training_logits(model, chosen.training_inputs(pictures(8), draw), draw)
    chosen.loss(logits, torch.arange(8)).backward()
    optimizer.step()
    same = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])}
    assert same == {"whitening", *(name for name in before if name.endswith("norm.weight"))}
    trained_by_the_optimizer = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained_by_the_optimizer == {id(p) for p in model.parameters() if p.requires_grad}


def test_a_new_group_passes_its_input_on() -> None:
    network = CifarFastNetwork(10, (24, 32, 48))
    x = torch.randn(2, 24, 8, 8)
    assert torch.equal(network.groups[0].first(x)[:, :24], x)  # type: ignore[union-attr,operator]


@pytest.mark.parametrize("shape", [(16, 64), (64, 16)])
def test_an_orthogonalised_matrix_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(matrix))
    assert values.min() > 0.5
    assert values.max() < 1.3
    assert torch.linalg.svdvals(matrix / matrix.norm()).min() < 0.2


def test_without_orthogonality_muon_is_torchs_nesterov_sgd() -> None:
    ours, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 5)) for _ in range(2))
    muon = Muon([{"params": [ours], "lr": 0.1, "momentum": 0.85, "weight_decay": 0.01}])
    sgd = torch.optim.SGD([theirs], lr=0.1, momentum=0.85, weight_decay=0.01, nesterov=True)
    for _ in range(4):
        for parameter, optimizer in ((ours, muon), (theirs, sgd)):
            optimizer.zero_grad()
            (parameter**3).sum().backward()
            optimizer.step()
    assert torch.allclose(ours, theirs)


@pytest.mark.parametrize("budget", BUDGETS)
def test_images_grow_from_epoch_to_epoch_however_many_there_are(budget: str) -> None:
    for epochs in (0, 2, 30):
        chosen = recipe(budget=budget, epochs=epochs)
        draws = [Draw(0, epoch, np.arange(2, dtype=np.uint64)) for epoch in range(chosen.config.epochs)]
        sizes = [chosen.training_inputs(pictures(2), draw).shape[-1] for draw in draws]
        assert all(a <= b for a, b in itertools.pairwise(sizes))
        assert sizes[0] == BUDGETS[budget].sizes[0]
        assert set(sizes) <= set(BUDGETS[budget].sizes)
    own = recipe(budget=budget).config
    assert (own.epochs, own.lr) == (len(BUDGETS[budget].sizes), BUDGETS[budget].lr)
    assert recipe(budget=budget, lr=0.2).config.lr == 0.2


def test_the_rate_falls_along_a_line_step_by_step() -> None:
    chosen = recipe()
    rates = [chosen.rate(Moment(step, 5, 2)) for step in range(10)]
    assert rates == pytest.approx([1 - step / 10 for step in range(10)])


def test_an_evaluation_is_the_mean_of_its_views() -> None:
    chosen = recipe(budget="1min")
    with initial_weights(0):
        model = chosen.model(10).eval()
    chosen.initialise(model, pictures(16))
    inputs = chosen.evaluation_inputs(pictures(4))
    with torch.inference_mode():
        alone, mirrored, all_six = (recipe(budget="1min", views=n).evaluation_logits for n in (1, 2, 6))
        pair = (alone(model, inputs) + alone(model, inputs.flip(-1))) / 2
        assert torch.allclose(mirrored(model, inputs), pair, atol=1e-5)
        assert torch.allclose(mirrored(model, inputs), mirrored(model, inputs.flip(-1)), atol=1e-5)
        assert not torch.allclose(all_six(model, inputs), pair, atol=1e-5)


def test_a_job_that_yields_goes_on_to_the_same_weights(tmp_path: Path, images: Path, data_root: Path) -> None:
    settings = {"recipe": "cifar-fast", "budget": "1min", "epochs": 2, "batch_size": 30}
    undisturbed = Job.new(tmp_path / "undisturbed", str(images), data_root, **settings)  # type: ignore[arg-type]
    undisturbed.run()
    job = Job.new(tmp_path / "job", str(images), data_root, **settings)  # type: ignore[arg-type]
    with job.started() as attempt:
        attempt.wait_for(trained(4))
        job.want(Want.YIELD)
        attempt.finish()
    job.want(Want.RUN)
    job.run()
    assert_same(job, undisturbed, 6)
