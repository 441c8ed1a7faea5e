"""A home that m1d 0.1.0 wrote: what is in it shows, goes on and trains as it did then.

`home-0.1.0.tar.xz` holds a job "finished" and one "paused" at step 165 of a recipe's file, a measurement "measured" and
"queued", a `cifar` that was paused before its turn; their dataset "few" and their checkpoints.
"""

from __future__ import annotations

import shutil
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
from harness import PATIENCE_S, RunningDaemon
from m1.paths import Home
from m1.v1 import event_pb2, job_pb2
from m1d.store import Store
from proof import stored_events

FIXTURES = Path(__file__).parents[1] / "fixtures"
# Of "paused" after its 1,000 steps, trained by 0.1.0 without a pause between; and where that was.
WEIGHTS = "6becfc9f8b740fa6ee3a8cf9c5f50b9129856dc9729ea1de0a1b340f8077a1f2"
WRITTEN_UNDER = ("torch was 2.14.1+cu130", "machine was Linux x86_64 AVX512", "processor was AMD EPYC")
ACCURACY, LOSS = 0.7666666666666667, 0.7282


@pytest.fixture
def old(quiet_daemon: RunningDaemon) -> RunningDaemon:
    shutil.rmtree(Home(quiet_daemon.home).data)
    with tarfile.open(FIXTURES / "home-0.1.0.tar.xz") as tar:
        tar.extractall(quiet_daemon.home, filter="data")
    quiet_daemon.start()
    return quiet_daemon


def test_everything_in_it_is_listed_and_shown(old: RunningDaemon) -> None:
    jobs = {job.name: job for job in old.client.list_jobs()}
    assert {name: job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_") for name, job in jobs.items()} == {
        "finished": "SUCCEEDED",
        "measured": "SUCCEEDED",
        "paused": "PAUSED",
        "queued": "PAUSED",
    }
    assert jobs["finished"].latest_metrics["test/accuracy"] == pytest.approx(0.1)
    assert jobs["measured"].findings
    assert [checkpoint.step for checkpoint in old.client.list_checkpoints("paused")] == [165, 135]
    assert old.client.get_checkpoint("paused@135").best
    listed = old.m1ctl("list")
    assert listed.returncode == 0
    assert "66.67 %" in listed.stdout, listed.stdout
    shown = old.m1ctl("show", "finished")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "few" in old.m1ctl("data", "list").stdout


def test_a_job_that_it_paused_ends_with_the_same_bits(old: RunningDaemon) -> None:
    old.client.resume("paused")
    ended = old.client.wait("paused", timeout_s=PATIENCE_S)

    assert ended.state == job_pb2.JOB_STATE_SUCCEEDED, ended.error
    assert [words for words in ended.approximate if not words.startswith(WRITTEN_UNDER)] == []
    newest = next(old.client.list_checkpoints("paused"))
    assert newest.step == 1000
    if not ended.approximate:  # on the processor and with the torch that it was paused on
        assert newest.weights_sha256 == WEIGHTS
    assert ended.latest_metrics["test/accuracy"] == pytest.approx(ACCURACY, abs=0.1)
    assert ended.latest_metrics["test/loss"] == pytest.approx(LOSS, abs=0.05)
    assert sorted(old.client.get_checkpoint("paused@215").metrics) == ["val/accuracy", "val/loss"]
    warned = [
        event.notice_raised.message
        for event in stored_events(old.home)
        if event.notice_raised.severity == event_pb2.SEVERITY_WARNING and event.job_id == ended.id
    ]
    assert [message for message in warned if "approximate" not in message] == []


def test_its_jobs_say_what_they_are_and_what_they_measure(old: RunningDaemon) -> None:
    jobs = {job.name: job for job in old.client.list_jobs()}
    assert {name: job_pb2.JobKind.Name(job.kind).removeprefix("JOB_KIND_") for name, job in jobs.items()} == {
        "finished": "TRAINING",
        "measured": "MEASUREMENT",
        "paused": "TRAINING",
        "queued": "TRAINING",
    }
    assert [metric.key for metric in jobs["paused"].metrics] == ["accuracy", "loss"]
    assert (jobs["paused"].sample_unit, list(jobs["measured"].metrics)) == ("images", [])
    recorded = [event.metrics_recorded for event in stored_events(old.home) if event.HasField("metrics_recorded")]
    old.stop()
    with closing(Store(Home(old.home).database)) as store:
        read, _ = store.events(0, store.revision, job=None, kinds=[event_pb2.EVENT_KIND_METRICS], limit=10_000)
    of_step = {name for event in read if event.metrics_recorded.of_step for name in event.metrics_recorded.values}
    later = {name for event in read if not event.metrics_recorded.of_step for name in event.metrics_recorded.values}
    assert len(read) == len(recorded)
    assert all(name.startswith("train/") for name in of_step)
    assert {"val/accuracy", "val/loss", "test/accuracy", "test/loss"} <= later
    old.start()


def test_a_job_that_had_not_begun_trains_on_the_data_in_its_cache(old: RunningDaemon) -> None:
    old.client.resume("queued")
    ended = old.client.wait("queued", timeout_s=PATIENCE_S)

    assert (ended.state, list(ended.approximate)) == (job_pb2.JOB_STATE_SUCCEEDED, []), ended.error
    assert ended.progress.total_steps == 5


def test_a_job_may_begin_with_one_of_its_checkpoints(old: RunningDaemon) -> None:
    from m1ctl.sdk.client import recipe_file

    job = old.client.submit(
        recipe_file(str(FIXTURES / "recipe-0.1.0.py")), from_checkpoint="paused@165", settings={"epochs": 34}
    )
    ended = old.client.wait(job, timeout_s=PATIENCE_S)

    assert ended.state == job_pb2.JOB_STATE_SUCCEEDED, ended.error
    assert ended.progress.step == 170
    assert [w for w in ended.approximate if not w.startswith(WRITTEN_UNDER)] == ["epochs was 200, is 34"]
