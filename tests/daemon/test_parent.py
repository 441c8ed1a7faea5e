"""What may be a checkpoint to begin with: only the form is checked here, and no file is waited for."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from m1.checkpoint_state import MAX_STATE_BYTES
from m1.errors import M1Error, Reason
from m1.paths import Home
from m1.settings import Value
from m1d.jobs.parent import COPY, Parent, check_something_left, copy_checkpoint, read_parent

STATE = {
    "step": 5, "epoch": 1, "validated_epochs": 1, "validation": {}, "best": None, "fingerprint": {}, "time": 1.0,
    "job": {
        "id": "j1", "recipe": "cifar", "data": "few", "settings": {"lr": 0.1},
        "profile": {"threads": 2, "compile": None, "turbo": True, "device": 5, "origin": "somewhere"},
    },
}  # fmt: skip


def test_a_checkpoint_says_its_recipe_data_and_settings_and_the_profile_s_fields_that_are_known(
    tmp_path: Path,
) -> None:
    (tmp_path / "state.json").write_text(json.dumps(STATE))
    assert read_parent(tmp_path) == Parent(tmp_path, 5, 1, "cifar", "few", {"lr": 0.1}, {"threads": 2})


def test_the_best_checkpoint_as_0_1_0_wrote_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps({**STATE, "best": {"step": 3, "accuracy": 0.5}}))
    assert read_parent(tmp_path).step == 5


@pytest.mark.parametrize("what", ["a FIFO", "a link", "a directory", "too large"])
def test_a_state_that_is_no_plain_file_is_refused_at_once(tmp_path: Path, what: str) -> None:
    state = tmp_path / "state.json"
    if what == "a FIFO":  # nobody writes to it: whoever opens it as a file waits
        os.mkfifo(state)
    elif what == "a link":
        state.symlink_to("/dev/zero")
    elif what == "a directory":
        state.mkdir()
    else:
        with open(state, "wb") as file:
            file.truncate(MAX_STATE_BYTES + 1)
    with pytest.raises(M1Error, match="too large" if what == "too large" else "not a plain file") as caught:
        read_parent(tmp_path)
    assert (caught.value.reason, caught.value.field) == (Reason.BAD_CHECKPOINT, "spec.from_checkpoint")


def test_a_checkpoint_with_something_else_than_files_in_it_is_not_copied(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.jobs.mkdir(parents=True)
    source = tmp_path / "source"
    source.mkdir()
    (source / "state.json").write_text(json.dumps(STATE))
    os.mkfifo(source / "weights.safetensors")
    with pytest.raises(M1Error, match=r'"weights\.safetensors" is not a plain file'):
        copy_checkpoint(home, read_parent(source))
    assert list(home.jobs.glob(f"{COPY}*")) == []


def test_a_parent_that_has_done_all_epochs_leaves_nothing_to_train(tmp_path: Path) -> None:
    settings: dict[str, Value] = {"epochs": 3, "batch_size": 16, "lr": 0.1}
    parent = Parent(tmp_path, 36, 3, "cifar", "few", settings, {})
    for epochs in (1, 3):
        with pytest.raises(M1Error) as refused:
            check_something_left(parent, "few", {**settings, "epochs": epochs, "lr": 0.2})
        assert (refused.value.reason, refused.value.field) == (Reason.INVALID_SETTING, "settings.epochs")
        leaves = f"epochs={epochs} leaves nothing to train: the checkpoint has done 3 of them"
        assert str(refused.value) == f"{leaves}: set epochs to 4 or more"
    check_something_left(parent, "few", {**settings, "epochs": 4})
    check_something_left(parent, "other", settings)
    check_something_left(parent, "few", {**settings, "batch_size": 4})
