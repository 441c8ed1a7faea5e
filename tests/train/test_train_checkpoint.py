"""What a checkpoint is, what is kept, and what is refused before anything of it is used."""

import fcntl
import hashlib
import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from m1 import durable
from m1.checkpoint_state import Best, Origin, State
from m1.columns import Column
from m1.jobdir import checkpoint_path, checkpoint_steps, checkpoints_path
from m1train.checkpoints import files as checkpoint
from m1train.checkpoints.files import BadCheckpointError, kept
from m1train.checkpoints.snapshot import Snapshot, restore
from m1train.checkpoints.tensor_file import write_tensors
from m1train.engine.position import Action, Position, Rhythm, at_risk, due
from safetensors.torch import save

LABEL = Column("label", "label", "int64", [], {}, ["cat", "dog"])
ORIGIN = Origin("j1", "cifar", "digits", {"lr": 0.001, "seed": 3}, {"threads": 4}, [LABEL], '{"mean": 0.5}')
STATE = State(
    7, 1, 1, {"val/accuracy": 0.5}, Best(5, 0.5), {"torch": "2", "threads": 4}, 12.5, ["threads was 1, is 4"], ORIGIN
)
FILES = ("weights.safetensors", "optimizer.safetensors", "state.json", "manifest.json")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    checkpoints_path(tmp_path).mkdir()
    return tmp_path


@pytest.fixture
def path(directory: Path) -> Path:
    tensors = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(5)}
    checkpoint.write(directory, STATE, tensors, {"b.exp_avg": torch.ones(2, 3)})
    return checkpoint_path(directory, 7)


def tensors(header: dict[str, object], size_bytes: int) -> bytes:
    """A file of tensors with a header that may lie."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size_bytes)


def resealed(path: Path, name: str, content: bytes) -> None:
    """Change a file and make the manifest agree: what a foreign or malicious checkpoint looks like."""
    (path / name).write_bytes(content)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_what_was_written_is_read(path: Path) -> None:
    loaded = checkpoint.read(path)
    assert loaded.checkpoint.state == STATE
    assert loaded.checkpoint.size_bytes == sum(file.stat().st_size for file in path.iterdir())
    assert torch.equal(loaded.weights["b"], torch.arange(6.0).reshape(2, 3))
    assert set(loaded.optimizer) == {"b.exp_avg"}
    assert {file.name for file in path.iterdir()} == set(FILES)


def test_the_hash_of_the_weights_depends_on_nothing_but_the_weights(directory: Path) -> None:
    first = checkpoint.write(directory, STATE, {"a": torch.ones(2), "b": torch.zeros(3)}, {})
    other_state = replace(STATE, step=8, time=99.0, approximate=["threads was 1, is 2"])
    second = checkpoint.write(directory, other_state, {"b": torch.zeros(3), "a": torch.ones(2)}, {"x": torch.ones(1)})
    third = checkpoint.write(directory, replace(STATE, step=9), {"b": torch.ones(3), "a": torch.ones(2)}, {})
    assert first.weights_sha256 == second.weights_sha256 != third.weights_sha256


def test_a_checkpoint_that_cannot_be_finished_leaves_nothing(
    directory: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Path, content: bytes) -> None:
        file.write_bytes(content[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_file", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.write(directory, replace(STATE, step=8), {"a": torch.ones(2)}, {})
    assert list(checkpoints_path(directory).iterdir()) == [path]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells a descriptor's file by its number")
def test_a_checkpoint_is_on_the_medium_before_it_appears_and_its_manifest_is_the_last_of_its_files(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    rename, fsync = os.rename, os.fsync

    def renamed(source: Path, target: Path) -> None:
        rename(source, target)
        done.append(f"rename to {Path(target).name}")

    def synced(fd: int) -> None:
        fsync(fd)
        done.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)

    monkeypatch.setattr(os, "rename", renamed)
    monkeypatch.setattr(os, "fsync", synced)
    checkpoint.write(directory, STATE, {"a": torch.ones(2)}, {})
    files, (within, appears, parent) = done[:4], done[4:]
    assert files == list(FILES)
    assert within.startswith(".tmp-")
    assert (appears, parent) == ("rename to step-00000007", "checkpoints")


def test_where_the_system_has_a_full_sync_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(durable, "_FULL_FSYNC", 51)
    monkeypatch.setattr(fcntl, "fcntl", lambda _fd, command: asked.append(command))
    durable.write_file(tmp_path / "file", b"content")
    durable.sync_directory(tmp_path)
    assert asked == [51, 51]


def test_a_checkpoint_of_the_version_before_is_read(path: Path) -> None:
    state = json.loads((path / "state.json").read_text())
    del state["approximate"], state["job"], state["validated_step"]
    resealed(path, "state.json", json.dumps(state | {"request": 3}).encode())
    assert checkpoint.read(path).checkpoint.state == replace(STATE, approximate=(), job=None, validated_step=None)


def test_the_best_checkpoint_of_the_version_before_is_known_by_its_accuracy(path: Path) -> None:
    state = json.loads((path / "state.json").read_text())
    resealed(path, "state.json", json.dumps(state | {"best": {"step": 5, "accuracy": 0.75}}).encode())
    assert checkpoint.read(path).checkpoint.state.best == Best(5, 0.75)


def test_a_file_of_tensors_is_what_the_library_would_have_written(tmp_path: Path) -> None:
    tensors = {
        "ä.weight": torch.arange(5.0),
        "bn.num_batches_tracked": torch.tensor(7),
        "half": torch.ones(3, 2, dtype=torch.bfloat16),
        "empty": torch.empty(0, 4),
        "a.bias": torch.linspace(0, 1, 9).reshape(3, 3),
        "mask": torch.tensor([True, False]),
        "bytes": torch.arange(3, dtype=torch.uint8),
    }
    for chosen in (tensors, {}):
        path = tmp_path / f"{len(chosen)}.safetensors"
        written = write_tensors(path, chosen)
        assert path.read_bytes() == save(chosen)
        assert written.size_bytes == path.stat().st_size
        assert written.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_snapshot_is_of_its_step_whatever_the_next_forward_pass_does_to_the_buffers() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    images = torch.linspace(0, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    snapshot = Snapshot(model, optimizer)
    model(images).square().mean().backward()
    snapshot.wait()
    optimizer.step()
    found = snapshot.tensors()[0]
    assert found.keys() == before.keys()
    assert all(torch.equal(found[name], before[name]) for name in before)
    assert not any(torch.equal(model.state_dict()[name], before[name]) for name in before)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flipped", "cut", "missing", "empty"])
def test_a_damaged_file_is_found(path: Path, name: str, damage: str) -> None:
    file = path / name
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    else:
        content[len(content) // 2] ^= 1
        file.write_bytes({"flipped": bytes(content), "cut": bytes(content[:-1]), "empty": b""}[damage])
    with pytest.raises(BadCheckpointError):
        checkpoint.read(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("weights.safetensors", b"\xff\xff\xff\xff\xff\xff\xff\x7f{}"),
        ("weights.safetensors", b"\x10" + bytes(7) + b'{"a":{"dtype":1}'),
        ("optimizer.safetensors", b"pickle"),
        ("weights.safetensors", tensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 2**40]}}, 8)),
        ("weights.safetensors", tensors({"a": {"dtype": "F32", "shape": [2**61], "data_offsets": [0, 8]}}, 8)),
        ("weights.safetensors", tensors({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, 8)),
        ("weights.safetensors", tensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, 8)),
        ("weights.safetensors", tensors({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, 8)),
        ("weights.safetensors", tensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, 4096)),
        ("state.json", b"[]"),
        ("state.json", b'{"step": NaN}'),
        ("state.json", b'{"step": ' + b"9" * 400 + b"}"),
        ("state.json", b"[" * 100_000),
        ("state.json", b"\xff\xfe"),
    ],
)
def test_content_that_lies_under_right_hashes_is_refused(path: Path, name: str, content: bytes) -> None:
    resealed(path, name, content)
    with pytest.raises(BadCheckpointError):
        checkpoint.read(path)


def test_what_is_pickled_is_refused_and_not_run(path: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "it was run"),)

    torch.save({"a": Evil()}, tmp_path / "pickled")
    for name in FILES[:3]:
        resealed(path, name, (tmp_path / "pickled").read_bytes())
        with pytest.raises(BadCheckpointError):
            checkpoint.read(path)
        assert not (tmp_path / "it was run").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"step": -1},
        {"step": 1.5},
        {"step": True},
        {"validation": 3},
        {"best": [1]},
        {"fingerprint": None},
        {"approximate": "no"},
        {"job": []},
        {"job": {"id": 1}},
    ],
)
def test_a_state_of_wrong_types_is_refused(path: Path, change: dict[str, object]) -> None:
    state = json.loads((path / "state.json").read_text()) | change
    resealed(path, "state.json", json.dumps(state).encode())
    with pytest.raises(BadCheckpointError, match="is not a state"):
        checkpoint.read(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["files"].update({"../../spec.json": m["files"].pop("state.json")}),
        lambda m: m["files"].pop("state.json"),
        lambda m: m["files"].update({"state.json": "small"}),
        lambda m: m.update(format=2),
        lambda m: m.update(files=[]),
    ],
)
def test_a_manifest_that_names_anything_else_is_refused(
    path: Path, change: Callable[[dict[str, object]], None]
) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadCheckpointError, match=r"manifest\.json"):
        checkpoint.read(path)


def test_one_that_is_set_aside_never_takes_the_place_of_another(directory: Path, path: Path) -> None:
    content = {file.name: file.read_bytes() for file in path.iterdir()}
    assert checkpoint.set_aside(directory, 7) == "damaged-step-00000007"
    path.mkdir()
    assert checkpoint.set_aside(directory, 7) == "damaged-step-00000007-2"
    aside = checkpoints_path(directory) / "damaged-step-00000007"
    assert {file.name: file.read_bytes() for file in aside.iterdir()} == content
    assert checkpoint_steps(directory) == []


def test_the_newest_and_the_best_are_kept() -> None:
    assert kept([1, 2, 3, 4, 5], 2, best=2) == {2, 4, 5}
    assert kept([1, 2, 3], 2, best=3) == {2, 3}
    assert kept([1, 2, 3], 1, best=None) == {3}
    assert kept([1, 2], 3, best=9) == {1, 2}, "the best may have been deleted by its owner"


def test_a_training_goes_on_from_a_snapshot_bit_for_bit() -> None:
    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        model(torch.linspace(0, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    def new() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
        model = model.to(memory_format=torch.channels_last)
        return model, torch.optim.AdamW(model.parameters(), fused=True)

    model, optimizer = new()
    step(model, optimizer)
    weights, tensors = Snapshot(model, optimizer).tensors()
    step(model, optimizer)
    other, other_optimizer = new()
    restore(other, other_optimizer, weights, tensors)
    step(other, other_optimizer)
    for first, second in zip(
        Snapshot(model, optimizer).tensors(), Snapshot(other, other_optimizer).tensors(), strict=True
    ):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_is_due_follows_from_where_the_training_stands() -> None:
    def at(step: int, validated: int, saved: tuple[int, int] = (-1, -1), *, tested: bool = False) -> Action:
        return due(Position(step, validated, saved=saved, tested=tested), Rhythm(5, 4, 5, 2))

    assert at(0, 0) is Action.TRAIN
    assert at(4, 0) is Action.TRAIN
    assert at(5, 0) is Action.VALIDATE
    assert at(5, 5) is Action.TRAIN, "a checkpoint is due every second epoch"
    assert at(10, 5) is Action.VALIDATE
    assert at(10, 10) is Action.CHECKPOINT
    assert at(10, 10, saved=(10, 5)) is Action.CHECKPOINT, "the one before the validation lacks its result"
    assert at(10, 10, saved=(10, 10)) is Action.TRAIN
    assert at(20, 20) is Action.CHECKPOINT
    assert at(20, 20, saved=(20, 20)) is Action.TEST
    assert at(20, 20, saved=(20, 20), tested=True) is Action.FINISH


def walked(rhythm: Rhythm) -> list[tuple[Action, int]]:
    """All that a training does but its steps, and after which of them."""
    position, done = Position(), list[tuple[Action, int]]()
    while (action := due(position, rhythm)) is not Action.FINISH:
        if action is Action.TRAIN:
            position.step += 1
            continue
        done.append((action, position.step))
        position.tested = action is Action.TEST
        if action is Action.VALIDATE:
            position.validated_step = position.step
        if action is Action.CHECKPOINT:
            position.saved = (position.step, position.validated_step)
    return done


def test_validations_and_checkpoints_go_by_steps_whatever_an_epoch_has() -> None:
    done = walked(Rhythm(steps_per_epoch=5, epochs=2, validate_every_steps=4, checkpoint_every_steps=3))
    assert [step for action, step in done if action is Action.VALIDATE] == [4, 8, 10]
    assert [step for action, step in done if action is Action.CHECKPOINT] == [3, 6, 9, 10]
    assert done[-3:] == [(Action.VALIDATE, 10), (Action.CHECKPOINT, 10), (Action.TEST, 10)]


def test_a_validation_after_more_steps_than_there_are_is_made_at_the_end() -> None:
    assert walked(Rhythm(5, 2, 1000)) == [(Action.VALIDATE, 10), (Action.CHECKPOINT, 10), (Action.TEST, 10)]


def test_nothing_that_is_held_out_is_never_validated_and_the_end_has_its_checkpoint() -> None:
    assert walked(Rhythm(5, 2, 0)) == [(Action.CHECKPOINT, 10), (Action.TEST, 10)]


def test_checkpoints_by_epochs_and_by_steps_are_made_once_where_they_meet() -> None:
    done = walked(Rhythm(6, 2, 0, checkpoint_every_epochs=1, checkpoint_every_steps=4))
    assert [step for action, step in done if action is Action.CHECKPOINT] == [4, 6, 8, 12]


def test_a_checkpoint_is_due_when_more_than_the_allowed_time_is_at_risk() -> None:
    def at(now: float, every: float, step: int = 9) -> bool:
        return at_risk(Position(step=step, saved=(8, 1), saved_at_s=100.0), now, every)

    assert not at(399.9, 300)
    assert at(400, 300)
    assert not at(10_000, 0), "0 allows any"
    assert not at(10_000, 300, step=8), "nothing was trained since"
