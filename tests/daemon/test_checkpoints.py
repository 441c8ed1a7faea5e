"""Checkpoints through the API: made now, listed, downloaded whole, deleted."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from harness import LONG, PATIENCE_S, RunningDaemon
from m1.errors import M1Error, Reason
from m1.v1 import job_pb2


def test_a_checkpoint_made_now_is_durable_when_it_is_answered(held_daemon: RunningDaemon) -> None:
    client = held_daemon.client
    made = client.create_checkpoint("holder", timeout_s=PATIENCE_S)
    directory = held_daemon.home / "jobs" / made.job_id / "checkpoints" / f"step-{made.step:08d}"
    weights = (directory / "weights.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == made.weights_sha256
    assert made.size_bytes == sum(path.stat().st_size for path in directory.iterdir())
    assert made.id == f"{made.job_id}@{made.step}"
    assert client.get_checkpoint(made.id) == made
    again = client.create_checkpoint("holder", timeout_s=PATIENCE_S)
    assert (again.step, again.weights_sha256) == (made.step, made.weights_sha256)


def test_a_checkpoint_is_downloaded_whole(held_daemon: RunningDaemon, tmp_path: Path) -> None:
    client = held_daemon.client
    made = client.create_checkpoint("holder", timeout_s=PATIENCE_S)
    client.download_checkpoint(made.id, tmp_path / "copy")
    source = held_daemon.home / "jobs" / made.job_id / "checkpoints" / f"step-{made.step:08d}"
    assert {p.name: p.read_bytes() for p in (tmp_path / "copy").iterdir()} == {
        p.name: p.read_bytes() for p in source.iterdir()
    }


def test_a_checkpoint_that_a_job_needs_is_not_deleted(held_daemon: RunningDaemon) -> None:
    client = held_daemon.client
    made = client.create_checkpoint("holder", timeout_s=PATIENCE_S)
    with pytest.raises(M1Error) as caught:
        client.delete_checkpoint(made.id)
    assert caught.value.reason is Reason.WRONG_STATE
    client.wait(client.pause("holder"), until={job_pb2.JOB_STATE_PAUSED}, timeout_s=PATIENCE_S)
    with pytest.raises(M1Error, match="go on from"):
        client.delete_checkpoint(made.id)
    client.cancel("holder")
    client.delete_checkpoint(made.id)
    assert list(client.list_checkpoints("holder")) == []
    with pytest.raises(M1Error) as caught:
        client.get_checkpoint(made.id)
    assert caught.value.reason is Reason.CHECKPOINT_NOT_FOUND


@pytest.mark.parametrize("reference", ["", "j1", "j1@", "j1@x", "holder@999999", "@3", "nobody@1"])
def test_a_checkpoint_that_is_not_there_is_not_found(held_daemon: RunningDaemon, reference: str) -> None:
    with pytest.raises(M1Error) as caught:
        held_daemon.client.get_checkpoint(reference)
    assert caught.value.reason in {Reason.CHECKPOINT_NOT_FOUND, Reason.JOB_NOT_FOUND}


def test_the_last_three_and_the_best_are_kept(daemon: RunningDaemon) -> None:
    client = daemon.client
    settings = {**LONG, "epochs": 8, "checkpoint_every_epochs": 1}
    job = client.submit("cifar", data="few", settings=settings, name="many")
    assert client.wait(job, timeout_s=PATIENCE_S).state == job_pb2.JOB_STATE_SUCCEEDED
    kept = list(client.list_checkpoints("many"))
    assert {8, 7, 6} <= {checkpoint.epoch for checkpoint in kept}
    assert 3 <= len(kept) <= 4
    (best,) = [checkpoint for checkpoint in kept if checkpoint.best]
    series = client.metric_series("val/accuracy", "many")
    assert best.metrics["val/accuracy"] == max(bucket.last for bucket in series.buckets)
    directories = {path.name for path in (daemon.home / "jobs" / job.id / "checkpoints").iterdir()}
    assert directories == {f"step-{checkpoint.step:08d}" for checkpoint in kept}
