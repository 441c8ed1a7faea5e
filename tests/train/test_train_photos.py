"""photos: its networks, what it takes of a file of weights, and the two phases of a fine-tuning."""

import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from m1.checkpoint_state import STATE_FILE, read_state
from m1.errors import M1Error, Reason
from m1.jobdir import checkpoint_path, result_path
from m1.journal import Approximate, CheckpointWritten, Notice
from m1train.engine.examples import examples, needs_of
from m1train.engine.rehearsal import rehearse
from m1train.randomness import Draw, initial_weights
from m1train.recipe import Moment
from m1train.recipes.photos import NETWORKS, PhotosConfig
from m1train.recipes.photos.crops import Crops, drawn_crops, resized_crops
from m1train.recipes.photos.download import address, cached
from m1train.recipes.photos.network import HEADS, DrawnDropout, head_of, network
from m1train.recipes.photos.recipe import Photos
from m1train.recipes.photos.weights import read_weights
from m1train.task.settings import resolved
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from training_process import Job, assert_same, ended, exited

CLASSES = 3


def recipe(**settings: object) -> Photos:
    return Photos(resolved(PhotosConfig, {"size": 32, "network": "mobilenet_v3_small", "epochs": 4} | settings))


def pictures(n: int, size: int = 32) -> Tensor:
    """[n, size, size, 3] uint8: a bright square on a dark ground, its place and colour by its number."""
    images = torch.full((n, size, size, 3), 30, dtype=torch.uint8)
    for i in range(n):
        at = size // 8 * (i % 4)
        images[i, at : at + size // 2, at : at + size // 2, i % CLASSES] = 220
    return images


def draw(n: int, epoch: int = 0) -> Draw:
    return Draw(0, epoch, np.arange(n, dtype=np.uint64))


class Training:
    """A recipe's steps on the same few pictures, four to an epoch, as the engine makes them."""

    def __init__(self, chosen: Photos, n: int = 4, classes: int = CLASSES) -> None:
        self.recipe, self.images, self.labels = chosen, pictures(n, chosen.config.size), torch.arange(n) % classes
        with initial_weights(0):
            self.model = chosen.model(classes)
        if chosen.fit_samples:
            chosen.initialise(self.model, self.images)
        self.optimizer: Optimizer = chosen.optimizer(self.model)
        for group in self.optimizer.param_groups:
            group["initial_lr"] = group["lr"]

    def step(self, number: int) -> float:
        at = Moment(number, 4, self.recipe.config.epochs)
        drawn = draw(len(self.images), at.epoch)
        logits = self.recipe.training_logits(self.model, self.recipe.training_inputs(self.images, drawn), drawn)
        loss = self.recipe.loss(logits, self.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.recipe.set_rates(self.optimizer, at)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())

    def state(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mobilenet_v3_small for seven classes, some steps old: weights.safetensors and weights.pth."""
    training = Training(recipe(), n=8, classes=7)
    for number in range(3):
        training.step(number)
    folder = tmp_path_factory.mktemp("pretrained")
    save_file(training.state(), folder / "weights.safetensors")
    torch.save(training.state(), folder / "weights.pth")
    return folder


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [32, 64])
def test_every_network_is_built_and_learns(name: str, size: int) -> None:
    training = Training(recipe(network=name, size=size), n=3)
    before = training.state()
    training.step(0)
    same = [key for key, tensor in training.state().items() if torch.equal(tensor, before[key])]
    assert same == []


def test_a_batch_is_of_the_size_that_was_asked_for() -> None:
    chosen = recipe(size=96)
    inputs = chosen.training_inputs(pictures(2, 96), draw(2))
    assert (inputs.shape, inputs.dtype) == ((2, 3, 96, 96), torch.float32)
    assert chosen.evaluation_inputs(pictures(2, 96)).shape == (2, 3, 96, 96)
    with initial_weights(0):
        model = chosen.model(CLASSES)
    assert chosen.training_logits(model, inputs, draw(2)).shape == (2, CLASSES)


def test_only_a_network_without_batchnorm_learns_from_one_image() -> None:
    assert {name: recipe(network=name).least_batch for name in NETWORKS} == {
        "resnet18": 2,
        "mobilenet_v3_small": 2,
        "efficientnet_b0": 2,
        "convnext_tiny": 1,
    }
    batchnorms = {name: any(isinstance(m, nn.BatchNorm2d) for m in network(name, 2).modules()) for name in NETWORKS}
    assert batchnorms == {name: recipe(network=name).least_batch == 2 for name in NETWORKS}
    Training(recipe(network="convnext_tiny"), n=1).step(0)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_calls_its_tensors_as_torchvision_does(name: str) -> None:
    from torchvision import models

    theirs = models.get_model(name, weights=None, num_classes=CLASSES)
    with initial_weights(1):
        ours = network(name, CLASSES).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.linspace(-1, 1, 2 * 3 * 64 * 64).reshape(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(ours(x), theirs.eval()(x))


@pytest.mark.parametrize("name", ["efficientnet_b0", "convnext_tiny"])
def test_what_is_dropped_follows_from_the_draw_and_not_from_the_batch(name: str) -> None:
    chosen = recipe(network=name)
    with initial_weights(0):
        model = chosen.model(CLASSES).double()
    for module in model.modules():
        if isinstance(module, DrawnDropout):
            module.p = 0.5  # the early ones hardly drop anything
        if isinstance(module, nn.BatchNorm2d):
            module.forward = lambda x: x  # type: ignore[assignment,method-assign]  # it looks at the whole batch
    images = pictures(4)

    def logits(samples: slice, epoch: int = 0) -> Tensor:
        part = Draw(0, epoch, np.arange(4, dtype=np.uint64)[samples])
        inputs = chosen.evaluation_inputs(images[samples]).double()
        return chosen.training_logits(model, inputs, part).detach()

    whole = logits(slice(4))
    assert torch.equal(whole, logits(slice(4)))
    assert torch.allclose(whole[2:], logits(slice(2, 4)), rtol=1e-10, atol=0)
    assert not torch.allclose(whole, logits(slice(4), epoch=1), rtol=1e-8, atol=0)


def test_a_crop_of_everything_is_the_image_and_a_flip_its_mirror_image() -> None:
    images = pictures(2).permute(0, 3, 1, 2).float() / 255
    zeros, ones = np.zeros(2, np.float32), np.ones(2, np.float32)
    flip = np.array([False, True])
    found = resized_crops(images, Crops(zeros, zeros, ones, ones), flip)
    assert torch.allclose(found[0], images[0], atol=1e-5)
    assert torch.allclose(found[1], images[1].flip(-1), atol=1e-5)


def test_a_crop_is_what_torchvision_cuts_out() -> None:
    from torchvision.transforms.v2.functional import resized_crop

    images = pictures(2, 64).permute(0, 3, 1, 2).float() / 255
    quarter = np.full(2, 0.25, np.float32)
    found = resized_crops(images, Crops(quarter, 2 * quarter, 2 * quarter, quarter), np.array([False, False]))
    # torchvision's cut ends at the border of the part, ours sees the pixel beyond it: the border is left out.
    expected = resized_crop(images, 32, 16, 16, 32, [64, 64], antialias=False)
    assert torch.allclose(found[:, :, 4:-4, 2:-2], expected[:, :, 4:-4, 2:-2], atol=1e-5)


def test_crops_lie_within_the_image_and_are_as_large_as_was_asked_for() -> None:
    crops = drawn_crops(draw(2000), 0.35)
    assert (crops.left >= 0).all()
    assert (crops.left + crops.width <= 1 + 1e-6).all()
    assert (crops.top + crops.height <= 1 + 1e-6).all()
    area = crops.width * crops.height
    assert 0.34 < area.min() < 0.4
    assert 0.95 < area.max() <= 1
    whole = drawn_crops(draw(10), 1)
    assert (whole.width == 1).all()
    assert (whole.height == 1).all()


# Weights to begin with


@pytest.mark.parametrize("file", ["weights.safetensors", "weights.pth"])
def test_all_but_the_head_is_taken_from_a_file(pretrained: Path, file: str) -> None:
    path = pretrained / file
    training = Training(recipe(init=str(path)))
    expected = read_weights(str(path)).tensors
    head = {f"{HEADS['mobilenet_v3_small']}.{part}" for part in ("weight", "bias")}
    same = {name for name, tensor in training.state().items() if torch.equal(tensor, expected[name])}
    assert set(expected) - same == head
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert [note.text for note in training.recipe.notes] == [
        f"242 of 244 tensors are taken from {file} (SHA-256 {sha256[:12]}); the head is new: 7 → 3 classes"
    ]


def test_a_head_of_as_many_classes_is_new_as_well(pretrained: Path) -> None:
    path = pretrained / "weights.pth"
    training = Training(recipe(init=str(path)), n=7, classes=7)
    head = head_of(training.model)
    assert not torch.equal(head.weight, read_weights(str(path)).tensors["classifier.3.weight"])
    assert "242 of 244" in training.recipe.notes[0].text


def test_a_training_scripts_own_checkpoint_is_unwrapped(pretrained: Path, tmp_path: Path) -> None:
    tensors = torch.load(pretrained / "weights.pth", weights_only=True)
    halves = {
        f"module.{name}": tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    }
    torch.save({"model": halves, "epoch": 3}, tmp_path / "checkpoint.pth")
    training = Training(recipe(init=str(tmp_path / "checkpoint.pth")))
    assert "242 of 244" in training.recipe.notes[0].text
    assert training.model.get_parameter("features.0.0.weight").dtype == torch.float32


def test_what_a_file_lacks_is_named(pretrained: Path, tmp_path: Path) -> None:
    tensors = torch.load(pretrained / "weights.pth", weights_only=True)
    for name in ("features.0.1.bias", "classifier.3.weight"):
        del tensors[name]
    save_file(tensors, tmp_path / "part.safetensors")
    note = Training(recipe(init=str(tmp_path / "part.safetensors"))).recipe.notes[0].text
    assert "241 of 244" in note
    assert note.endswith("the head is new: 3 classes; new as well: features.0.1.bias")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch evil",)


def bad_files(folder: Path, good: Path) -> dict[str, tuple[Path, str]]:
    """What is no file of weights, and what is said of it."""
    tensors = torch.load(good / "weights.pth", weights_only=True)
    (folder / "text").write_text("hello\n")
    (folder / "empty").write_bytes(b"")
    (folder / "cut").write_bytes((good / "weights.safetensors").read_bytes()[:-100])
    (folder / "cut.pth").write_bytes((good / "weights.pth").read_bytes()[:-100])
    torch.save({"a": Evil()}, folder / "evil.pth")
    torch.save([1, 2], folder / "list.pth")
    save_file({"a": torch.zeros(2), "b": torch.ones(1)}, folder / "other")
    save_file({name: tensor for name, tensor in tensors.items() if name.endswith("tracked")}, folder / "counters")
    save_file({**tensors, "features.0.0.weight": tensors["features.0.0.weight"] * float("nan")}, folder / "nan")
    os.mkfifo(folder / "pipe")
    with open(folder / "huge", "wb") as huge:
        huge.truncate(2**31)
    (folder / "folder").mkdir()
    return {
        "text": (folder / "text", "cannot be read as weights"),
        "empty": (folder / "empty", "cannot be read as weights"),
        "cut": (folder / "cut", "cannot be read as weights"),
        "cut.pth": (folder / "cut.pth", "cannot be read as weights"),
        "evil": (folder / "evil.pth", "cannot be read as weights"),
        "list": (folder / "list.pth", "holds no tensors by name"),
        "other": (folder / "other", "has no tensor that fits mobilenet_v3_small (it has a, b)"),
        "counters": (folder / "counters", "has no tensor that fits mobilenet_v3_small"),
        "nan": (folder / "nan", 'has a number in "features.0.0.weight" that is not finite'),
        "pipe": (folder / "pipe", "is not a file"),
        "huge": (folder / "huge", "has 2.1 GB, and 1.1 GB are read at most"),
        "folder": (folder / "folder", "is not a file"),
        "nowhere": (folder / "nowhere", "is not there"),
    }


def test_what_is_no_file_of_weights_is_refused_in_one_sentence(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the evil one would leave a file
    for name, (path, problem) in bad_files(tmp_path, pretrained).items():
        chosen = recipe(init=str(path))
        with initial_weights(0):
            model = chosen.model(CLASSES)
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        with pytest.raises(M1Error) as refused:
            chosen.initialise(model, pictures(2))
        error = refused.value
        assert problem in error.message, name
        assert error.field == "settings.init"
        assert error.reason in {Reason.INVALID_SETTING, Reason.FILE_NOT_FOUND}
        assert error.hint
        assert "\n" not in str(error)
        assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert not (tmp_path / "evil").exists()


def test_a_relative_path_is_refused_with_what_is_taken_instead() -> None:
    with pytest.raises(M1Error) as refused:
        recipe(init="./weights.pth")
    assert str(refused.value) == (
        'the setting init="./weights.pth" is not an absolute path: init takes none, torchvision, or an absolute path'
    )


@pytest.fixture
def server(pretrained: Path) -> Iterator[tuple[str, list[str]]]:
    """A server of one file of weights under any name, and what was asked of it."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            content = (pretrained / "weights.pth").read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()


def test_a_download_is_checked_by_its_name_and_made_once(
    pretrained: Path, tmp_path: Path, server: tuple[str, list[str]]
) -> None:
    root, asked = server
    content = (pretrained / "weights.pth").read_bytes()
    name = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    cache = tmp_path / "home" / "weights"
    assert cached(f"{root}/{name}", cache) == cache / name
    assert cached(f"{root}/{name}", cache).read_bytes() == content
    assert asked == [f"/{name}"]
    (cache / name).write_bytes(b"damaged")
    assert cached(f"{root}/{name}", cache).read_bytes() == content
    assert len(asked) == 2
    with pytest.raises(M1Error, match=r"net-00000000.pth could not be downloaded \(what came has the SHA-256"):
        cached(f"{root}/net-00000000.pth", cache)
    assert [path.name for path in cache.iterdir()] == [name]


def test_without_a_network_a_download_says_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(M1Error) as failed:
        cached("http://127.0.0.1:9/net-00000000.pth", tmp_path)
    assert failed.value.reason is Reason.DOWNLOAD_FAILED
    assert "--set init=/path/to/net-00000000.pth" in failed.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NETWORKS)
def test_torchvision_names_a_hash_in_the_address_of_every_network(name: str, tmp_path: Path) -> None:
    url = address(name)
    with pytest.raises(M1Error):  # and not an AssertionError
        cached(f"http://127.0.0.1:9/{url.rpartition('/')[2]}", tmp_path)


# Frozen first, and then not


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_while_it_is_frozen_only_the_head_changes_and_then_everything_does(name: str, tmp_path: Path) -> None:
    torch.save(Training(recipe(network=name), n=8, classes=7).state(), tmp_path / "weights.pth")
    training = Training(recipe(network=name, init=str(tmp_path / "weights.pth"), freeze_epochs=1, weight_decay=0.5))
    before = training.state()
    head = {f"{HEADS[name]}.{part}" for part in ("weight", "bias")}
    for number in range(4):
        training.step(number)
    frozen = training.state()
    assert {key for key in before if not torch.equal(before[key], frozen[key])} == head
    assert {id(p) for p in training.optimizer.state} == {id(p) for p in head_of(training.model).parameters()}
    training.step(4)
    assert [key for key, tensor in training.state().items() if torch.equal(tensor, frozen[key])] == []


def test_the_backbone_has_a_part_of_the_heads_rate_and_none_while_it_is_frozen(pretrained: Path) -> None:
    training = Training(recipe(init=str(pretrained / "weights.pth"), lr=0.01, backbone_lr=0.1, warmup=0))
    rates = []
    for step in (0, 3, 4, 8):
        training.recipe.set_rates(training.optimizer, Moment(step, 4, 4))
        groups = training.optimizer.param_groups
        rates.append([groups[0]["lr"], groups[-1]["lr"]])
    assert [backbone for _, backbone in rates[:2]] == [0, 0]
    assert rates[3] == pytest.approx([0.005, 0.0005])
    plain = Training(recipe(lr=0.01, backbone_lr=0.1))
    assert {group["initial_lr"] for group in plain.optimizer.param_groups} == {0.01}


def test_the_rate_rises_and_falls_by_steps() -> None:
    chosen = recipe(warmup=0.25)
    rates = [chosen.rate(Moment(step, 4, 4)) for step in range(16)]
    assert rates[:3] == [0.25, 0.5, 0.75]
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert 0 < rates[-1] < 0.02


def test_it_learns(pretrained: Path) -> None:
    for settings in ({}, {"init": str(pretrained / "weights.pth"), "freeze_epochs": 1}):
        training = Training(recipe(lr=0.01, epochs=10, **settings), n=6)
        losses = [training.step(number) for number in range(20)]
        assert losses[-1] < losses[0]


# In a training process


def tuned(directory: Path, images: Path, data_root: Path, init: Path, **settings: object) -> Job:
    """Two epochs of three steps, the first one frozen; a checkpoint after every step."""
    values = {"network": "mobilenet_v3_small", "size": 32, "fit": "squeeze", "batch_size": 30, "init": str(init)}
    every_step = {"freeze_epochs": 1, "checkpoint_every_steps": 1, "keep_checkpoints": 10}
    return Job.new(directory, str(images), data_root, recipe="photos", **(values | every_step | settings))  # type: ignore[arg-type]


def test_a_fine_tuning_resumes_exactly_in_both_phases_without_its_file(
    tmp_path: Path, images: Path, data_root: Path, pretrained: Path
) -> None:
    init = tmp_path / "weights.safetensors"
    shutil.copy(pretrained / "weights.safetensors", init)
    undisturbed = tuned(tmp_path / "undisturbed", images, data_root, init)
    undisturbed.run()
    job = tuned(tmp_path / "job", images, data_root, init)
    for step in (1, 3, 4):  # within the frozen epoch, at its end, and after it
        with job.started() as attempt:
            attempt.wait_for(lambda record: isinstance(record, CheckpointWritten) and record.step >= step)  # noqa: B023
            attempt.kill()
        init.unlink(missing_ok=True)
    job.run()
    assert_same(job, undisturbed, 6)
    records = job.journals()
    assert not [record for record in records if isinstance(record, Approximate)]
    said = [
        record.message for record in records if isinstance(record, Notice) and "tensors are taken" in record.message
    ]
    assert len(said) == 1
    assert said[0].endswith("the head is new: 7 → 10 classes")
    assert result_path(job.directory, "init", "text").read_text() == said[0]
    state = read_state((checkpoint_path(job.directory, 6) / STATE_FILE).read_bytes())
    assert state.job
    sha256 = hashlib.sha256((pretrained / "weights.safetensors").read_bytes()).hexdigest()
    assert json.loads(state.job.facts) == {"init": {"source": str(init), "sha256": sha256}}


def assert_predicts(directory: Path, images: Path) -> None:
    """The job's last checkpoint names a class for an image that it has not seen, without its data or its file."""
    command = [sys.executable, "-m", "m1train", "use", "--directory", str(directory), "--step", "3", "--use", "predict"]
    done = subprocess.run(
        [*command, "--input", str(images / "test/0/9.png")], capture_output=True, text=True, check=False
    )
    row = json.loads(done.stdout)["row"]
    assert row["class"] in {str(digit) for digit in range(10)}
    assert 0 < row["probability"] <= 1


def test_the_checkpoint_of_a_job_is_a_file_to_begin_with(
    tmp_path: Path, images: Path, data_root: Path, pretrained: Path
) -> None:
    first = tuned(tmp_path / "first", images, data_root, pretrained / "weights.pth", epochs=1, size=48, fit="pad")
    first.run()
    state = read_state((checkpoint_path(first.directory, 3) / STATE_FILE).read_bytes())
    assert state.job
    assert state.job.columns[0].shape == [48, 48, 3]
    assert_predicts(first.directory, images)
    weights = checkpoint_path(first.directory, 3) / "weights.safetensors"
    records = tuned(tmp_path / "second", images, data_root, weights, epochs=1).run()
    assert ended(records, "succeeded")
    assert any("the head is new: 10 → 10 classes" in r.message for r in records if isinstance(r, Notice))


def test_a_job_with_a_bad_file_says_so_before_it_trains(tmp_path: Path, images: Path, data_root: Path) -> None:
    left = exited(tuned(tmp_path / "job", images, data_root, tmp_path / "weights.pth").run())
    assert (left.outcome, left.code, left.step) == ("failed", "FILE_NOT_FOUND", 0)
    assert f'the file init="{tmp_path}/weights.pth" is not there' in left.message


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_resumes_exactly_from_its_first_step(name: str) -> None:
    config = resolved(PhotosConfig, {"network": name, "size": 32})
    rehearse(Photos, config, lambda task: examples(task, needs_of(task), 64), lambda _: nullcontext())


def test_a_fine_tuning_resumes_exactly_over_the_end_of_the_frozen_epoch(pretrained: Path) -> None:
    init = str(pretrained / "weights.pth")
    config = resolved(PhotosConfig, {"network": "mobilenet_v3_small", "size": 32, "init": init, "freeze_epochs": 1})
    rehearse(Photos, config, lambda task: examples(task, needs_of(task), 64), lambda _: nullcontext())
