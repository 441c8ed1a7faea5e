"""What docs/failures.md says of the daemon's side, failure by failure."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from harness import LONG, PATIENCE_S, RunningDaemon, StandIn, running_daemon
from m1.errors import ExitCode, M1Error, Reason
from m1.journal import Continued, Exited, Metrics, journal_path
from m1.paths import Home
from m1.spec import JobSpec
from m1.v1 import event_pb2, job_pb2
from m1d.catalogue.plans import Planners
from m1d.catalogue.profiles import Profiles, current_conditions
from m1d.catalogue.recipes import Recipes
from m1d.events.hub import Hub
from m1d.jobs.job import Process
from m1d.jobs.states import JobState
from m1d.machine.topology import read_topology
from m1d.processes.training import kill, start_mark
from m1d.running.supervisor import Supervisor
from m1d.store import Store
from m1d.verbs.parts import Parts
from m1d.verbs.pause import pause, resume
from m1d.verbs.submit.plan import Plan
from m1d.verbs.submit.submit import store as store_job
from proof import stored_events, submit, training_pids
from test_home import one_sentence, serve

RUNNING, HELD, YIELDING = job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_HELD, job_pb2.JOB_STATE_YIELDING
SUCCEEDED, CANCELLED = job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_CANCELLED
SHORT: dict[str, bool | float | str] = {"epochs": 2, "batch_size": 12, "seed": 7}


def running(daemon: RunningDaemon, name: str = "long") -> job_pb2.Job:
    """A job that trains and will not end by itself."""
    job = submit(daemon.client, name, LONG)
    return daemon.client.wait(job, until={RUNNING}, timeout_s=PATIENCE_S)


# The disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A home on a disk of 4 MB of its own."""
    home = tmp_path / "h"
    home.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(home)]
    linux = os.geteuid() == 0 and sys.platform == "linux"
    if not linux or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield home
    subprocess.run(["umount", "--lazy", str(home)], check=True)


def fill(home: Path) -> Path:
    """Take what is left of the disk."""
    filler = home / "filler"
    free = os.statvfs(home).f_bavail * os.statvfs(home).f_frsize
    filler.write_bytes(b"x" * free)
    assert os.statvfs(home).f_bavail == 0
    return filler


def test_a_full_disk_refuses_a_submit_in_one_sentence_and_takes_it_when_there_is_space(small_disk: Path) -> None:
    daemon = RunningDaemon(small_disk)
    try:
        daemon.start()
        daemon.client.recipes()
        filler = fill(small_disk)
        with pytest.raises(M1Error) as caught:
            daemon.client.submit("stress", request_id="r")
        assert caught.value.reason is Reason.DISK_FULL
        assert list(daemon.client.list_jobs()) == []
        filler.unlink()
        assert daemon.client.submit("stress", request_id="r").id == "j1"
    finally:
        daemon.end()


def test_a_home_that_has_become_read_only_is_refused_in_one_sentence(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refusal = serve(small_disk)
    assert refusal.returncode == ExitCode.NOT_ALLOWED
    assert "Read-only file system" in one_sentence(refusal)


def test_a_read_only_disk_refuses_every_change_and_the_daemon_stays_up(quiet_daemon: RunningDaemon) -> None:
    quiet_daemon.start(M1D_FAILPOINT="before.commit=EROFS")
    with pytest.raises(M1Error, match="Read-only file system"):
        submit(quiet_daemon.client, "never", SHORT)
    assert list(quiet_daemon.client.list_jobs()) == []


def test_a_deletion_that_cannot_be_stored_has_not_happened(held_daemon: RunningDaemon) -> None:
    held_daemon.client.wait(held_daemon.client.cancel("holder"), timeout_s=PATIENCE_S)
    held_daemon.stop()
    held_daemon.start(M1D_FAILPOINT="within.delete=ENOSPC")
    with pytest.raises(M1Error) as caught:
        held_daemon.client.delete("holder")
    assert caught.value.reason is Reason.DISK_FULL
    job = held_daemon.client.get("holder")
    assert [path.name for path in (held_daemon.home / "jobs").iterdir()] == [job.id]


def test_a_wish_that_the_full_disk_kept_from_the_process_is_told_as_soon_as_it_can_be(
    quiet_daemon: RunningDaemon,
) -> None:
    quiet_daemon.start(M1D_FAILPOINT="before.desired:2-3=ENOSPC")
    job = running(quiet_daemon)
    job = quiet_daemon.client.pause(job.id, hold=True)
    assert quiet_daemon.client.wait(job, until={HELD}, timeout_s=PATIENCE_S).state == HELD
    assert "tried again" in quiet_daemon.log()


def test_what_was_journalled_while_the_disk_was_full_is_taken_in_once_there_is_space(
    quiet_daemon: RunningDaemon,
) -> None:
    quiet_daemon.start(M1D_FAILPOINT="before.ingest:2-3=ENOSPC")
    ended = quiet_daemon.client.wait(submit(quiet_daemon.client, "short", SHORT), timeout_s=PATIENCE_S)
    assert (ended.state, ended.attempt) == (SUCCEEDED, 1)
    told = [event.metrics_recorded for event in stored_events(quiet_daemon.home) if event.HasField("metrics_recorded")]
    steps = [metrics.step for metrics in told if "train/loss" in metrics.values]
    assert steps == list(range(1, ended.progress.total_steps + 1))


# The clock


def test_a_clock_that_jumps_changes_neither_the_order_of_the_jobs_nor_that_of_the_events(tmp_path: Path) -> None:
    home, times = Home(tmp_path), iter([1e9, 2e9, 5e8, 0.0, 3e9, 1.0])
    home.jobs.mkdir()
    with closing(Store(home.database)) as store:
        hub = Hub(store.revision)
        profiles = Profiles(home.profiles, read_topology(), current_conditions)
        supervisor = Supervisor(home, store, profiles, {}, lambda: next(times), lambda: 0.0)
        recipes, planners = Recipes(home.cache, {}), Planners(home.cache, {})
        parts = Parts(home, store, hub, supervisor, recipes, profiles, planners, lambda: next(times), {})
        jobs = [store_job(parts, _plan(name)) for name in ("a", "b", "c")]
        assert [job.create_time for job in jobs] == [1e9, 2e9, 5e8]
        pause(parts, jobs[0], hold=False)
        paused = store.job(jobs[0].number)
        assert paused is not None
        assert paused.times[JobState.PAUSED.value] == 0.0
        resume(parts, paused)
        order = []
        while job := store.next_in_turn():
            order.append(job.name)
            with store.transaction() as tx:
                tx.delete_job(job)
        assert order == ["a", "b", "c"]
        told, _ = store.events(0, store.revision, job=None, kinds=[event_pb2.EVENT_KIND_STATE], limit=100)
        assert [event.revision for event in told] == [1, 2, 3, 4, 5]


def _plan(name: str) -> Plan:
    return Plan(name, "", JobSpec(recipe="cifar", data="few"), (), None, None)


# Processes


def test_a_recycled_pid_is_not_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as other:
        mark = start_mark(other.pid)
        kill(Process(other.pid, mark + "0"))  # an earlier process had this pid
        assert psutil.Process(other.pid).is_running()
        assert other.poll() is None
        kill(Process(other.pid, mark))
        assert other.wait(PATIENCE_S) == -signal.SIGKILL


def test_a_daemon_that_died_before_it_had_stored_the_process_learns_it_from_the_journal(
    quiet_daemon: RunningDaemon,
) -> None:
    quiet_daemon.start(M1D_FAILPOINT="after.spawn")
    job = submit(quiet_daemon.client, "orphan", LONG)
    assert quiet_daemon.process is not None
    assert quiet_daemon.process.wait(PATIENCE_S) == -signal.SIGKILL
    quiet_daemon.start()
    adopted = quiet_daemon.client.wait(job, until={RUNNING}, timeout_s=PATIENCE_S)
    assert [adopted.pid] == training_pids(quiet_daemon.home)
    assert adopted.attempt == 1


def test_a_held_job_whose_process_and_daemon_were_killed_is_held_again(held_daemon: RunningDaemon) -> None:
    job = held_daemon.client.get("holder")
    held_daemon.kill()
    os.kill(job.pid, signal.SIGKILL)
    held_daemon.start()
    again = held_daemon.client.wait(held_daemon.client.get(job.id), until={RUNNING}, timeout_s=PATIENCE_S)
    again = held_daemon.client.wait(again, until={HELD}, timeout_s=PATIENCE_S)
    assert (again.state, again.attempt) == (HELD, 2)


def test_a_job_that_was_parked_by_a_daemon_that_died_meanwhile_goes_on_with_the_next(daemon: RunningDaemon) -> None:
    job = running(daemon)
    os.kill(job.pid, signal.SIGSTOP)  # it does not obey yet
    stopping = threading.Thread(target=_shut_down, args=(daemon,))
    stopping.start()
    assert daemon.client.wait(job, until={YIELDING}, timeout_s=PATIENCE_S).state == YIELDING
    daemon.kill()
    stopping.join(PATIENCE_S)
    daemon.start()
    os.kill(job.pid, signal.SIGCONT)
    yielding = daemon.client.get(job.id)
    again = daemon.client.wait(yielding, until={RUNNING}, timeout_s=PATIENCE_S)
    assert (again.state, again.attempt) == (RUNNING, 2)


def _shut_down(daemon: RunningDaemon) -> None:
    with pytest.raises(M1Error):
        daemon.client.shutdown(yield_job=True)


def test_a_hold_does_not_take_back_a_cancel(daemon: RunningDaemon) -> None:
    job = running(daemon)
    os.kill(job.pid, signal.SIGSTOP)
    daemon.client.cancel(job.id)
    with pytest.raises(M1Error, match="was cancelled") as caught:
        daemon.client.pause(job.id, hold=True)
    assert caught.value.reason is Reason.WRONG_STATE
    os.kill(job.pid, signal.SIGCONT)
    assert daemon.client.wait(job, timeout_s=PATIENCE_S).state == CANCELLED


# The page


def test_every_test_that_the_page_of_failures_names_is_there() -> None:
    tests = Path(__file__).parents[1]
    page = (tests.parent / "docs" / "failures.md").read_text()
    there = {name for file in tests.rglob("test_*.py") for name in re.findall(r"def (test_\w+)\(", file.read_text())}
    assert set(re.findall(r"`(test_\w+)`", page)) <= there


# The journal


def test_a_journal_with_a_damaged_record_is_reported_and_the_job_ends_with_the_same_bits(data_cache: Path) -> None:
    with running_daemon(data_cache) as daemon:
        undamaged = daemon.client.wait(submit(daemon.client, "undamaged", SHORT), timeout_s=PATIENCE_S)
        assert undamaged.state == SUCCEEDED
        expected = next(daemon.client.list_checkpoints(undamaged.id)).weights_sha256
        job = daemon.client.wait(submit(daemon.client, "damaged", SHORT), until={RUNNING}, timeout_s=PATIENCE_S)
        daemon.kill()
        psutil.Process(job.pid).wait(PATIENCE_S)  # it trains to its end
        path = journal_path(Home(daemon.home).job(job.id), 1)
        journal = bytearray(path.read_bytes())
        journal[-len(journal) // 4] ^= 0x10
        path.write_bytes(journal)
        daemon.start()
        ended = daemon.client.wait(daemon.client.get(job.id), timeout_s=PATIENCE_S)
        assert (ended.state, ended.attempt) == (SUCCEEDED, 2)
        assert next(daemon.client.list_checkpoints(job.id)).weights_sha256 == expected
        kinds = [event_pb2.EVENT_KIND_NOTICE]
        watching = daemon.client.watch(job.id, from_revision=1, kinds=kinds, timeout_s=PATIENCE_S)
        messages = (event.notice_raised.message for response in watching for event in response.events)
        assert next(message for message in messages if "is damaged at byte" in message)


def test_processes_that_stood_still_as_in_a_machine_s_sleep_go_on_where_they_stood(daemon: RunningDaemon) -> None:
    job = running(daemon)
    assert daemon.process is not None
    both = [psutil.Process(daemon.process.pid), psutil.Process(job.pid)]
    for process in both:
        process.suspend()
    stood = daemon.home / "jobs" / job.id / "journal-1"
    deadline = threading.Event()
    size = stood.stat().st_size
    assert not deadline.wait(2.0)  # the sleep itself
    assert stood.stat().st_size == size
    for process in reversed(both):
        process.resume()
    before = daemon.client.get(job.id)
    for response in daemon.client.watch(job.id, from_revision=before.revision + 1, timeout_s=PATIENCE_S):
        if any(event.metrics_recorded.step > before.progress.step for event in response.events):
            break
    after = daemon.client.get(job.id)
    assert (after.state, after.pid, after.attempt) == (RUNNING, job.pid, 1)


def test_a_long_journal_of_a_process_that_died_unseen_is_taken_in_to_its_last_word(held_daemon: RunningDaemon) -> None:
    job = held_daemon.client.get("holder")
    process = StandIn(held_daemon, job)
    journal = process.journal
    journal.append(Continued(0))
    for step in range(1, 6001):
        journal.append(Metrics(step, 0, {"train/loss": 1 / step}))
    journal.append(Exited("succeeded", step=6000))
    process.leave()
    held_daemon.start()
    ended = held_daemon.client.wait("holder", timeout_s=PATIENCE_S)
    assert (ended.state, ended.attempt) == (SUCCEEDED, 1)
    buckets = held_daemon.client.metric_series("train/loss", "holder", max_points=10_000).buckets
    assert [bucket.last_step for bucket in buckets] == list(range(1, 6001))
