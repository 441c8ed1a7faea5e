"""The way of a job: through its states, through pauses and deaths, and out at the end with the same weights."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from harness import LONG, PATIENCE_S, RunningDaemon, running_daemon
from m1.errors import M1Error, Reason
from m1.v1 import event_pb2, job_pb2
from m1ctl.sdk.client import Client

RUNNING, HELD, YIELDING = job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_HELD, job_pb2.JOB_STATE_YIELDING
PAUSED, QUEUED, STARTING = job_pb2.JOB_STATE_PAUSED, job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_STARTING
SUCCEEDED, FAILED = job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED
CANCELLED = job_pb2.JOB_STATE_CANCELLED

SHORT: dict[str, bool | float | str] = {"epochs": 3, "batch_size": 12, "seed": 7}  # nine steps an epoch


def submit(
    client: Client, name: str, settings: dict[str, bool | float | str] = SHORT, priority: int = 0
) -> job_pb2.Job:
    profile = job_pb2.Profile(threads=1)
    return client.submit("cifar", data="few", settings=settings, name=name, priority=priority, profile=profile)


def final_weights(client: Client, job: job_pb2.Job) -> str:
    ended = client.wait(job, timeout_s=PATIENCE_S)
    assert ended.state == SUCCEEDED, ended
    return next(client.list_checkpoints(job.id)).weights_sha256


def wait_for_step(client: Client, job: job_pb2.Job, step: int) -> None:
    """Return when the job has recorded that step, or a later one."""
    for response in client.watch(job.id, from_revision=1, timeout_s=PATIENCE_S):
        for event in response.events:
            if event.WhichOneof("payload") == "metrics_recorded" and event.metrics_recorded.step >= step:
                return


def states(client: Client, job: job_pb2.Job) -> list[job_pb2.JobState]:
    """Every state that the job has been in, from the event stream."""
    return [event.state_changed.to for event in history(client, job) if event.HasField("state_changed")]


def history(client: Client, job: job_pb2.Job) -> Iterator[event_pb2.Event]:
    """Every event of the job up to now."""
    upto = client.system_info().revision
    for response in client.watch(job.id, from_revision=1, timeout_s=PATIENCE_S):
        yield from response.events
        if response.cursor >= upto:
            return


def pure_metrics(client: Client, job: job_pb2.Job) -> dict[str, list[tuple[int, float]]]:
    """All that the training computed, step by step, without what the clock measured."""
    names = ["train/loss", "train/accuracy", "train/lr", "train/grad_norm", "val/loss", "val/accuracy", "test/loss"]
    return {
        name: [(b.last_step, b.last) for b in client.metric_series(name, job.id, max_points=10_000).buckets]
        for name in names
    }


Result = tuple[str, dict[str, list[tuple[int, float]]]]


@pytest.fixture(scope="module")
def undisturbed(data_cache: Path) -> Iterator[Result]:
    """What a job with the settings SHORT ends with, when nobody touches it."""
    with running_daemon(data_cache) as daemon:
        job = submit(daemon.client, "undisturbed")
        yield final_weights(daemon.client, job), pure_metrics(daemon.client, job)


def test_a_job_goes_all_the_way(daemon: RunningDaemon) -> None:
    client = daemon.client
    job = submit(client, "first")
    assert (job.state, job.name) == (QUEUED, "first")
    ended = client.wait(job, timeout_s=PATIENCE_S)
    assert ended.state == SUCCEEDED
    assert states(client, job) == [QUEUED, STARTING, RUNNING, SUCCEEDED]
    assert ended.progress.step == ended.progress.total_steps > 0
    assert ended.progress.epoch == ended.progress.total_epochs == 3
    assert 0 <= ended.latest_metrics["test/accuracy"] <= 1
    assert [row[0] for row in client.get_result(job.id, "classes").table["rows"]] == [str(digit) for digit in range(10)]
    confusion = client.get_result(job.id, "confusion").table["rows"]
    right = sum(count for true, called, count in confusion if true == called)
    assert right / sum(count for _, _, count in confusion) == pytest.approx(ended.latest_metrics["test/accuracy"])
    steps = [b.last_step for b in client.metric_series("train/loss", job.id, max_points=10_000).buckets]
    assert steps == list(range(1, ended.progress.total_steps + 1))
    assert len(client.metric_series("val/accuracy", job.id).buckets) == 3
    assert len(client.metric_series("test/accuracy", job.id).buckets) == 1
    times = [ended.create_time, ended.queue_time, ended.start_time, ended.run_time, ended.end_time]
    assert [t.ToNanoseconds() for t in times] == sorted(t.ToNanoseconds() for t in times)
    assert [c.epoch for c in client.list_checkpoints(job.id)] == [3, 2, 1]


def test_a_job_that_was_paused_and_resumed_ends_with_the_same_bits(daemon: RunningDaemon, undisturbed: Result) -> None:
    client = daemon.client
    job = submit(client, "paused")
    wait_for_step(client, job, 3)
    pid = client.get(job.id).pid
    paused = client.wait(client.pause(job.id), until={PAUSED}, timeout_s=PATIENCE_S)
    assert paused.state == PAUSED
    assert not psutil.pid_exists(pid)
    newest = next(client.list_checkpoints(job.id))
    assert newest.step == paused.progress.step
    client.resume(job.id)
    assert (final_weights(client, job), pure_metrics(client, job)) == undisturbed
    told = [e.checkpoint_created.checkpoint.id for e in history(client, job) if e.HasField("checkpoint_created")]
    assert len(told) == len(set(told))
    assert states(client, job) == [
        QUEUED, STARTING, RUNNING, YIELDING, PAUSED, QUEUED, STARTING, RUNNING, SUCCEEDED
    ]  # fmt: skip
    assert client.get(job.id).attempt == 2


def test_a_job_that_was_held_ends_with_the_same_bits(daemon: RunningDaemon, undisturbed: Result) -> None:
    client = daemon.client
    job = submit(client, "held")
    wait_for_step(client, job, 2)
    held = client.wait(client.pause(job.id, hold=True), until={HELD}, timeout_s=PATIENCE_S)
    assert held.state == HELD
    made = client.create_checkpoint(job.id)
    assert made.step == client.get(job.id).progress.step
    client.resume(job.id)
    assert (final_weights(client, job), pure_metrics(client, job)) == undisturbed
    assert client.get(job.id).attempt == 1


def test_a_killed_daemon_adopts_the_running_job_and_takes_in_what_it_missed_once(
    daemon: RunningDaemon, undisturbed: Result
) -> None:
    job = submit(daemon.client, "orphan")
    wait_for_step(daemon.client, job, 2)
    pid = daemon.client.get(job.id).pid
    daemon.kill()
    psutil.Process(pid).wait(PATIENCE_S)  # it trains to its end with nobody there
    daemon.start()
    client = daemon.client
    assert (final_weights(client, job), pure_metrics(client, job)) == undisturbed
    steps = [e.metrics_recorded.step for e in history(client, job) if "train/loss" in e.metrics_recorded.values]
    assert steps == list(range(1, len(steps) + 1))
    revisions = [event.revision for event in history(client, job)]
    assert revisions == sorted(set(revisions))
    assert client.get(job.id).attempt == 1


def test_a_daemon_that_comes_back_finds_the_job_still_training(daemon: RunningDaemon) -> None:
    job = submit(daemon.client, "long", LONG)
    wait_for_step(daemon.client, job, 1)
    before = daemon.client.get(job.id)
    daemon.kill()
    daemon.start()
    after = daemon.client.get(job.id)
    assert (after.state, after.pid, after.attempt) == (RUNNING, before.pid, 1)
    wait_for_step(daemon.client, job, after.progress.step + 2)
    paused = daemon.client.wait(daemon.client.pause(job.id), until={PAUSED}, timeout_s=PATIENCE_S)
    assert paused.state == PAUSED


def test_a_killed_training_process_is_retried_and_ends_with_the_same_bits(
    daemon: RunningDaemon, undisturbed: Result
) -> None:
    client = daemon.client
    job = submit(client, "victim")
    wait_for_step(client, job, 13)
    os.kill(client.get(job.id).pid, signal.SIGKILL)
    assert (final_weights(client, job), pure_metrics(client, job)) == undisturbed
    ended = client.get(job.id)
    assert (ended.attempt, ended.failures) == (2, 0)  # it had made the checkpoint of the first epoch
    reasons = [e.state_changed.reason for e in history(client, job) if e.state_changed.to == QUEUED]
    assert "SIGKILL" in reasons[-1]


def test_a_job_fails_when_its_process_dies_too_often_without_progress_and_can_be_retried(
    daemon: RunningDaemon,
) -> None:
    client = daemon.client
    profile = job_pb2.Profile(threads=1)
    job = client.submit("cifar", data="few", settings=LONG, name="doomed", profile=profile, retries=1)
    for attempt in (1, 2):
        for response in client.watch(job.id, from_revision=1, kinds=[event_pb2.EVENT_KIND_STATE]):
            last = [e.state_changed.job for e in response.events if e.state_changed.to == RUNNING]
            if last and last[-1].attempt == attempt:
                os.kill(last[-1].pid, signal.SIGKILL)
                break
    failed = client.wait(job, timeout_s=PATIENCE_S)
    assert (failed.state, failed.attempt, failed.failures) == (FAILED, 2, 2)
    assert failed.error.code == "PROCESS_DIED"
    assert "SIGKILL" in failed.error.message
    assert "m1ctl retry doomed" in failed.error.hint
    client.retry(job.id)
    running = client.wait(client.get(job.id), until={RUNNING}, timeout_s=PATIENCE_S)
    assert (running.state, running.failures, running.error.code) == (RUNNING, 0, "")


def test_when_both_are_killed_the_job_goes_on_by_itself(daemon: RunningDaemon, undisturbed: Result) -> None:
    job = submit(daemon.client, "both")
    wait_for_step(daemon.client, job, 13)
    pid = daemon.client.get(job.id).pid
    daemon.kill()
    os.kill(pid, signal.SIGKILL)
    daemon.start()
    assert (final_weights(daemon.client, job), pure_metrics(daemon.client, job)) == undisturbed
    assert daemon.client.get(job.id).attempt == 2


def test_one_job_runs_at_a_time_by_priority_then_by_order(held_daemon: RunningDaemon) -> None:
    client = held_daemon.client
    tiny: dict[str, bool | float | str] = {"epochs": 1, "batch_size": 512, "checkpoint_every_epochs": 0}
    jobs = [submit(client, name, tiny, priority) for name, priority in (("a", 0), ("b", 0), ("c", 5), ("d", -1))]
    client.cancel("holder")
    for job in jobs:
        assert client.wait(job, timeout_s=PATIENCE_S).state == SUCCEEDED
    order: list[str] = []
    active = 0
    upto = client.system_info().revision
    for response in client.watch(from_revision=1, kinds=[event_pb2.EVENT_KIND_STATE], timeout_s=PATIENCE_S):
        for event in response.events:
            change = event.state_changed
            if change.to == STARTING:
                order.append(change.job.name)
            busy = {STARTING, RUNNING, HELD, YIELDING}
            active += (change.to in busy) - (getattr(change, "from") in busy)
            assert 0 <= active <= 1
        if response.cursor >= upto:
            break
    assert order == ["holder", "c", "a", "b", "d"]


def test_a_paused_job_lets_the_next_one_run_and_comes_back_to_the_head_of_its_priority(
    daemon: RunningDaemon,
) -> None:
    client = daemon.client
    first = submit(client, "first", LONG)
    wait_for_step(client, first, 1)
    second, third = submit(client, "second", LONG), submit(client, "third", LONG)
    client.wait(client.pause("first"), until={PAUSED}, timeout_s=PATIENCE_S)
    assert client.wait(second, until={RUNNING}, timeout_s=PATIENCE_S).state == RUNNING
    client.resume("first")
    client.cancel("second")
    assert client.wait(client.get("first"), until={RUNNING}, timeout_s=PATIENCE_S).state == RUNNING
    assert client.get(third.id).state == QUEUED


def test_a_job_can_be_cancelled_in_every_state_before_its_end(held_daemon: RunningDaemon) -> None:
    client = held_daemon.client
    queued, paused = submit(client, "queued"), submit(client, "paused")
    client.pause("paused")
    assert client.cancel(queued.id).state == CANCELLED
    assert client.cancel(paused.id).state == CANCELLED
    holder = client.wait(client.cancel("holder"), timeout_s=PATIENCE_S)
    assert holder.state == CANCELLED
    assert holder.pid == 0


@pytest.mark.parametrize("verb", ["pause", "hold", "resume", "cancel", "checkpoint", "retry"])
def test_a_verb_in_the_wrong_state_is_refused_and_changes_nothing(held_daemon: RunningDaemon, verb: str) -> None:
    client = held_daemon.client
    job = submit(client, "over")
    if verb != "retry":
        client.cancel(job.id)
    before = client.get(job.id)
    calls: dict[str, Callable[[], object]] = {
        "pause": lambda: client.pause(job.id),
        "hold": lambda: client.pause(job.id, hold=True),
        "resume": lambda: client.resume(job.id),
        "cancel": lambda: client.cancel(job.id),
        "checkpoint": lambda: client.create_checkpoint(job.id),
        "retry": lambda: client.retry(job.id),
    }
    with pytest.raises(M1Error) as caught:
        calls[verb]()
    assert caught.value.reason is Reason.WRONG_STATE
    assert job_pb2.JobState.Name(before.state).removeprefix("JOB_STATE_") in str(caught.value)
    assert client.get(job.id) == before


def test_a_deleted_job_leaves_nothing_behind(held_daemon: RunningDaemon) -> None:
    client = held_daemon.client
    with pytest.raises(M1Error, match="cancel"):
        client.delete("holder")
    client.wait(client.cancel("holder"), timeout_s=PATIENCE_S)
    job = client.get("holder")
    assert (held_daemon.home / "jobs" / job.id).exists()
    client.delete("holder")
    assert list((held_daemon.home / "jobs").iterdir()) == []
    with pytest.raises(M1Error) as caught:
        client.get("holder")
    assert caught.value.reason is Reason.JOB_NOT_FOUND


def test_sigterm_to_the_daemon_leaves_the_training_alone(daemon: RunningDaemon) -> None:
    job = submit(daemon.client, "long", LONG)
    wait_for_step(daemon.client, job, 1)
    pid = daemon.client.get(job.id).pid
    assert daemon.stop() == 0
    assert psutil.Process(pid).is_running()
    daemon.start()
    assert daemon.client.get(job.id).pid == pid


def test_a_daemon_that_yields_parks_the_job_and_the_next_one_goes_on(
    daemon: RunningDaemon, undisturbed: Result
) -> None:
    job = submit(daemon.client, "parked")
    queued = submit(daemon.client, "behind")
    wait_for_step(daemon.client, job, 2)
    pid = daemon.client.get(job.id).pid
    daemon.client.shutdown(yield_job=True)
    assert daemon.process is not None
    assert daemon.process.wait(PATIENCE_S) == 0
    assert not psutil.pid_exists(pid)
    daemon.start()
    client = daemon.client
    assert (final_weights(client, job), pure_metrics(client, job)) == undisturbed
    assert client.wait(queued, timeout_s=PATIENCE_S).create_time.ToSeconds() >= job.create_time.ToSeconds()


def test_sigterm_to_the_training_process_yields_and_the_job_goes_on(daemon: RunningDaemon, undisturbed: Result) -> None:
    client = daemon.client
    job = submit(client, "terminated")
    wait_for_step(client, job, 2)
    os.kill(client.get(job.id).pid, signal.SIGTERM)
    assert (final_weights(client, job), pure_metrics(client, job)) == undisturbed
    assert YIELDING in states(client, job)
    assert client.get(job.id).attempt == 2


def test_a_job_that_begins_with_a_checkpoint_of_another_ends_with_the_same_bits(
    daemon: RunningDaemon, undisturbed: Result, data_cache: Path, tmp_path: Path
) -> None:
    client = daemon.client
    job = submit(client, "source")
    wait_for_step(client, job, 11)
    checkpoint = client.create_checkpoint(job.id)
    client.download_checkpoint(checkpoint.id, tmp_path / "copy")
    client.wait(client.cancel(job.id), timeout_s=PATIENCE_S)
    # In the same home, with nothing said again: settings, data and profile are the checkpoint's.
    heir = client.submit("cifar", from_checkpoint=checkpoint.id, name="heir")
    assert final_weights(client, heir) == undisturbed[0]
    ended = client.get("heir")
    assert (ended.spec.data, list(ended.approximate)) == ("few", [])
    # In another home, from the files.
    with running_daemon(data_cache) as elsewhere:
        moved = elsewhere.client.submit("cifar", from_checkpoint=str(tmp_path / "copy"), name="moved")
        assert final_weights(elsewhere.client, moved) == undisturbed[0]
        assert list((elsewhere.home / "jobs").glob(".seed-*")) == []
    later = {step: value for step, value in undisturbed[1]["train/loss"] if step > checkpoint.step}
    assert dict(pure_metrics(client, heir)["train/loss"]) == later


def test_a_job_that_goes_on_under_other_conditions_is_marked_approximate(daemon: RunningDaemon) -> None:
    client = daemon.client
    job = submit(client, "source", LONG)
    wait_for_step(client, job, 1)
    checkpoint = client.create_checkpoint(job.id)
    client.wait(client.cancel(job.id), timeout_s=PATIENCE_S)
    heir = client.submit(
        "cifar", from_checkpoint=checkpoint.id, settings={"lr": 0.01}, profile=job_pb2.Profile(threads=2)
    )
    wait_for_step(client, heir, checkpoint.step + 1)
    marked = client.get(heir.id)
    assert {"threads", "lr"} <= {words.split()[0] for words in marked.approximate}, marked.approximate
    assert client.create_checkpoint(heir.id).approximate
    notices = [e.notice_raised.message for e in history(client, heir) if e.HasField("notice_raised")]
    assert any("approximate" in message and "threads" in message for message in notices)


def test_a_parent_that_is_no_checkpoint_is_refused_and_leaves_nothing(daemon: RunningDaemon, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"step": NaN}')
    for reference in (str(tmp_path), str(tmp_path / "absent"), "j9@3", "/etc/passwd"):
        with pytest.raises(M1Error):
            daemon.client.submit("cifar", data="few", from_checkpoint=reference)
    assert list(daemon.client.list_jobs()) == []
    assert list((daemon.home / "jobs").iterdir()) == []


def test_a_job_whose_parent_is_damaged_fails_and_does_not_train_from_the_beginning(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    client = daemon.client
    job = submit(client, "source", LONG)
    wait_for_step(client, job, 1)
    checkpoint = client.create_checkpoint(job.id)
    client.wait(client.cancel(job.id), timeout_s=PATIENCE_S)
    client.download_checkpoint(checkpoint.id, tmp_path / "copy")
    weights = tmp_path / "copy" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    failed = client.wait(client.submit("cifar", from_checkpoint=str(tmp_path / "copy")), timeout_s=PATIENCE_S)
    assert (failed.state, failed.error.code, failed.attempt) == (FAILED, "BAD_CHECKPOINT", 1)
    assert "weights.safetensors" in failed.error.message
