"""cifar-fast: its parts do what their names say, and it resumes bit for bit as any recipe does."""

import itertools
import json
import math
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from m1.checkpoint_state import read_state
from m1.errors import M1Error
from m1.jobdir import Profile, Want, results_path
from m1train.checkpoints.resume import effective
from m1train.engine import device
from m1train.randomness import Draw, initial_weights
from m1train.recipe import Moment
from m1train.recipes.cifar_fast import BUDGETS, CifarFastConfig
from m1train.recipes.cifar_fast.muon import Muon, orthogonalised
from m1train.recipes.cifar_fast.network import CifarFast, CifarFastNetwork, whitening_filters
from m1train.recipes.cifar_fast.plans import ladder, plan, seconds
from m1train.task.planning import Counts, Planned, StepTime
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
    chosen.loss(logits, torch.arange(8)).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    same = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])}
    assert same == {"whitening", *(name for name in before if name.endswith("norm.weight"))}
    trained_by_the_optimizer = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained_by_the_optimizer == {id(p) for p in model.parameters() if p.requires_grad}


def test_a_new_group_passes_its_input_on() -> None:
    network = CifarFastNetwork(10, (24, 32, 48))
    x = torch.randn(2, 24, 8, 8)
    assert torch.equal(network.groups[0].first(x)[:, :24], x)  # type: ignore[operator]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(16, 64), (64, 16)])
def test_an_orthogonalised_matrix_has_singular_values_near_one(shape: tuple[int, int], dtype: torch.dtype) -> None:
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(matrix, dtype))
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
            (parameter**3).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    assert torch.allclose(ours, theirs)


@pytest.mark.parametrize(("profile", "dtype"), [({}, torch.bfloat16), ({"optimizer_dtype": "float32"}, torch.float32)])
def test_muon_multiplies_in_the_format_of_the_profile(profile: dict[str, str], dtype: torch.dtype) -> None:
    at = device.place(Profile(**profile))  # type: ignore[arg-type]
    matrix = torch.nn.Parameter(torch.randn(8, 16, generator=torch.Generator().manual_seed(0)))
    update = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
    muon = at.prepare_optimizer(Muon([{"params": [matrix], "lr": 1.0, "orthogonal": True}]))
    expected = matrix.detach() * (math.sqrt(8) / matrix.detach().norm()) - orthogonalised(update, dtype)
    matrix.grad = update.clone()
    muon.step()
    assert torch.equal(matrix, expected)
    assert ("optimizer_dtype" in device.fingerprint(at.profile)) == bool(profile), "0.1.0's checkpoints don't know it"


def test_an_optimizer_takes_no_other_format_than_these() -> None:
    with pytest.raises(M1Error, match='optimizer_dtype="float16" is unknown: one of bfloat16, float32'):
        device.place(Profile(optimizer_dtype="float16"))


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


# Plans


@dataclass
class FakePace:
    """A machine on which a step of 17-pixel images takes so long, and others in proportion to what they compute."""

    step_s: float
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    def step(self, config: CifarFastConfig) -> StepTime:
        self.asked.append(("step", config.sizes, config.widths))
        each_s = self.step_s * recipe(**asdict(config))._plan.cost / next(ladder()).cost
        return StepTime(each_s + 0.1, each_s)

    def evaluation(self, config: CifarFastConfig) -> float:
        return 1e-4

    def checkpoint(self, config: CifarFastConfig) -> float:
        return 0.01


REAL = Counts(50_000, 10_000)


def planned(pace: FakePace, counts: Counts = REAL, **settings: object) -> Planned:
    return plan(resolved(CifarFastConfig, settings), counts, lambda: pace)


def never() -> FakePace:
    raise AssertionError("nothing was to be measured")


def test_the_plans_grow_in_cost_little_by_little_and_hold_the_measured_ones() -> None:
    rungs = list(ladder())
    steps = [after.cost / before.cost for before, after in itertools.pairwise(rungs)]
    assert all(1 < step <= 2 for step in steps[:1])
    assert all(1 < step < 1.45 for step in steps[1:])
    for rung in rungs:
        sides = [rung.side(epoch) for epoch in range(rung.length)]
        assert sides == sorted(sides)
        assert len(sides) == rung.length
    for before, after in itertools.pairwise(rungs):
        assert after.lr <= before.lr or after.length < before.length
    assert all(budget in rungs for budget in BUDGETS.values())


@pytest.mark.parametrize("step_s", [0.002, 0.1, 0.3])
@pytest.mark.parametrize("budget", ["45s", "1min", "2min", "5min", "1h30m"])
def test_the_dearest_plan_that_fits_the_budget_is_chosen(step_s: float, budget: str) -> None:
    found = planned(FakePace(step_s), budget=budget)
    assert found.seconds <= seconds(budget)
    rungs = [(rung, planned_s) for rung, planned_s in _predicted(step_s) if planned_s <= seconds(budget)]
    best, best_s = rungs[-1]
    assert found.seconds == pytest.approx(best_s, abs=0.06)
    chosen = recipe(budget=budget, **found.settings)
    assert (chosen.config.epochs, chosen._plan.sizes, chosen._plan.widths) == (best.length, best.sizes, best.widths)
    assert chosen.config.lr == best.lr
    assert chosen.promised_s == found.seconds
    assert best.words in found.words


def _predicted(step_s: float) -> list[tuple]:  # type: ignore[type-arg]
    cheapest = next(ladder()).cost
    return [
        (
            rung,
            98 * step_s * rung.cost / cheapest
            + 0.1 * len({rung.side(epoch) for epoch in range(rung.length)})
            + 1.0
            + 0.01 * rung.length,
        )
        for rung in ladder()
    ]


def test_only_what_the_choice_needs_is_measured() -> None:
    short, long = FakePace(0.25), FakePace(0.1)
    planned(short, budget="1min")
    assert {asked[1] for asked in short.asked} == {"17", "21"}
    planned(long, budget="1h30m")
    assert {asked[2] for asked in long.asked if asked[1] != "17"} == {"64,256,256"}
    assert len(set(long.asked)) == len(long.asked), "each once"


def test_a_budget_that_is_too_short_is_refused_with_the_least_possible_time() -> None:
    with pytest.raises(M1Error) as refused:
        planned(FakePace(1.0), budget="1min")
    assert str(refused.value) == (
        'the setting budget="1min" is too short here:'
        " the least plan, 1 epoch at 17 px, takes about 1m 39s: take budget=100s"
    )
    assert planned(FakePace(1.0), budget="100s").settings["epochs"] == 1


@pytest.mark.parametrize(
    "budget", ["0s", "0min", "", "banana", "1e9h", "-1min", "90", "2 min", "99999h", "30m1h", "nan", "infs", "\u0661s"]
)
def test_an_odd_budget_is_refused(budget: str) -> None:
    for ask in (
        lambda: plan(resolved(CifarFastConfig, {"budget": budget}), REAL, never),
        lambda: recipe(budget=budget),
    ):
        with pytest.raises(M1Error, match="budget takes a length of time above 0 and up to 30 days"):
            ask()


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ({"sizes": "17,x"}, "sizes takes up to 100 whole numbers from 16 to 32"),
        ({"sizes": "8"}, "sizes takes up to 100 whole numbers from 16 to 32"),
        ({"widths": "64,128"}, "widths takes three whole numbers from 1 to 1024"),
        ({"widths": "64,128,99999"}, "widths takes three whole numbers from 1 to 1024"),
    ],
)
def test_sizes_and_widths_that_cannot_be_are_refused(setting: dict[str, str], problem: str) -> None:
    with pytest.raises(M1Error, match=problem):
        plan(resolved(CifarFastConfig, setting), REAL, never)


def test_a_budget_of_its_own_trains_nothing_before_it_has_a_plan() -> None:
    with pytest.raises(M1Error, match=r'for the setting budget="90s" \(1m 30s\) no plan has been made: submitting'):
        recipe(budget="90s")
    assert recipe(budget="90s", sizes="17,25", widths="64,128,256").config.epochs == 2


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_job_of_0_1_0_trains_what_its_budget_named_then(budget: str) -> None:
    old, then = recipe(budget=budget), BUDGETS[budget]
    assert (old._plan.sizes, old._plan.widths) == (then.sizes, then.widths)
    assert not {"sizes", "widths", "promised_s"} & effective(old.config).keys(), "its fingerprint does not know them"
    assert old.promised_s == 0


def test_a_plan_that_is_there_is_kept() -> None:
    first = planned(FakePace(0.1), budget="2min")
    assert plan(resolved(CifarFastConfig, {"budget": "2min", **first.settings}), REAL, never) == Planned()
    assert plan(resolved(CifarFastConfig, {"budget": "2min", "epochs": 4}), REAL, never) == Planned()
    assert plan(resolved(CifarFastConfig, {}), REAL, never) == Planned()
    assert planned(FakePace(0.1), budget="2min", lr=0.05).settings["lr"] == 0.05


def test_what_is_chosen_later_is_refused_only_where_no_plan_could_mend_it() -> None:
    wanted = resolved(CifarFastConfig, {"budget": "90s"})
    assert plan(wanted, REAL, never, "later") == Planned()
    with pytest.raises(M1Error, match="no plan has been made"):
        plan(wanted, REAL, never, "never")
    with pytest.raises(M1Error, match="is no length of time"):
        plan(resolved(CifarFastConfig, {"budget": "banana"}), REAL, never, "later")


def test_less_data_are_trained_more_often_and_data_that_are_not_known_are_assumed() -> None:
    few = planned(FakePace(0.1), Counts(5_000), budget="2min")
    assert few.settings["epochs"] > planned(FakePace(0.1), budget="2min").settings["epochs"]  # type: ignore[operator]
    assert "for 4,500 images" in few.words
    unknown = planned(FakePace(0.1), Counts(), budget="2min")
    assert unknown.settings == planned(FakePace(0.1), budget="2min").settings
    assert "for 50,000 images, assumed" in unknown.words


def plan_command(tmp_path: Path, settings: dict[str, object], *more: str) -> dict[str, dict[str, str]]:
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    (tmp_path / "profile.json").write_text(json.dumps({"threads": 1}))
    command = [sys.executable, "-m", "m1train", "plan", "--recipe", "cifar-fast"]
    files = ["--settings", str(tmp_path / "settings.json"), "--profile", str(tmp_path / "profile.json")]
    answer = subprocess.run([*command, *files, *more], capture_output=True, text=True, check=True)
    said: dict[str, dict[str, str]] = json.loads(answer.stdout)
    return said


def test_this_machine_is_measured_and_the_plan_is_one_that_trains(tmp_path: Path) -> None:
    found = plan_command(
        tmp_path, {"budget": "1h", "batch_size": 16, "views": 1}, "--samples", "200", "--tested", "100"
    )
    assert "error" not in found, found
    assert 0 < float(found["settings"]["promised_s"]) <= 3600
    assert recipe(budget="1h", **found["settings"]).config.epochs >= 1


def test_what_cannot_be_planned_is_one_line_too(tmp_path: Path) -> None:
    error = plan_command(tmp_path, {"budget": "banana"})["error"]
    assert (error["reason"], error["field"]) == ("INVALID_SETTING", "settings.budget")
    assert plan_command(tmp_path, {"budget": "full"}) == {"settings": {}, "seconds": 0.0, "words": ""}


def test_a_job_that_goes_on_keeps_its_plan_and_says_what_it_took(tmp_path: Path, images: Path, data_root: Path) -> None:
    settings = {"recipe": "cifar-fast", "batch_size": 30, "budget": "20s"}
    stored = {"sizes": "17,21", "widths": "24,24,24", "epochs": 2, "lr": 0.2, "promised_s": 15.0}
    undisturbed = Job.new(tmp_path / "undisturbed", str(images), data_root, **settings, **stored)  # type: ignore[arg-type]
    undisturbed.run()
    job = Job.new(tmp_path / "job", str(images), data_root, **settings, **stored)  # type: ignore[arg-type]
    with job.started() as attempt:
        attempt.wait_for(trained(4))
        job.want(Want.YIELD)
        attempt.finish()
    saved = max((job.directory / "checkpoints").glob("step-*"))
    before_s = read_state((saved / "state.json").read_bytes()).took_s
    job.want(Want.RUN)
    job.run()
    assert_same(job, undisturbed, 6)
    result = json.loads((results_path(job.directory) / "budget.json").read_text())
    assert [column["name"] for column in result["columns"]] == ["promised", "took", "ratio"]
    promised_s, took_s, ratio = result["rows"][0]
    assert promised_s == 15.0
    assert took_s > before_s > 0, "both attempts count"
    assert ratio == pytest.approx(took_s / 15, abs=0.01)
