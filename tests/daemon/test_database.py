"""A database that another program holds, and one that is damaged, at its head or deep inside."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from harness import LONG, PATIENCE_S, RunningDaemon
from m1.errors import ExitCode, M1Error, Reason
from m1.paths import Home
from m1.spec import JobSpec
from m1.v1 import event_pb2, job_pb2
from m1d.events.emit import notice, tell_state
from m1d.jobs.job import Job
from m1d.jobs.states import JobState
from m1d.store import Store, StoreDamagedError
from proof import at_moment, stored_events, submit
from test_home import one_sentence, serve

SHORT: dict[str, bool | float | str] = {"epochs": 2, "batch_size": 12, "seed": 7}
PAGE_BYTES = 4096


@contextmanager
def held(home: Path, how: str = "IMMEDIATE") -> Iterator[None]:
    """Another program is in the middle of a transaction."""
    with closing(sqlite3.connect(Home(home).database, isolation_level=None)) as other:
        other.execute(f"BEGIN {how}")
        yield
        other.execute("ROLLBACK")


@pytest.mark.parametrize("how", ["IMMEDIATE", "EXCLUSIVE"])
def test_a_database_that_another_program_holds_refuses_a_change_soon_and_goes_on_reading(
    daemon: RunningDaemon, how: str
) -> None:
    with held(daemon.home, how):
        began = time.monotonic()
        with pytest.raises(M1Error, match="another program holds the database") as caught:
            submit(daemon.client, "never", SHORT)
        assert time.monotonic() - began < 2.5, "the daemon's one thread stood meanwhile"
        assert (caught.value.reason, caught.value.exit_code) == (Reason.STORE_BUSY, ExitCode.UNREACHABLE)
        assert str(Home(daemon.home).database) in str(caught.value)
        assert list(daemon.client.list_jobs()) == []
    assert submit(daemon.client, "now", SHORT).name == "now"


def test_what_was_trained_while_another_program_held_the_database_is_taken_in_afterwards(daemon: RunningDaemon) -> None:
    job = submit(daemon.client, "long", LONG)
    daemon.client.wait(job, until={job_pb2.JOB_STATE_RUNNING}, timeout_s=PATIENCE_S)
    with held(daemon.home):
        assert at_moment(daemon.home, 30, PATIENCE_S), "it trains on"
        before = daemon.client.get(job.id)
    for response in daemon.client.watch(job.id, from_revision=before.revision + 1, timeout_s=PATIENCE_S):
        if any(event.metrics_recorded.step > before.progress.step + 30 for event in response.events):
            break
    told = [event.metrics_recorded for event in stored_events(daemon.home) if event.HasField("metrics_recorded")]
    steps = [metrics.step for metrics in told if "train/loss" in metrics.values]
    assert steps == list(range(1, len(steps) + 1))


def test_a_daemon_stops_in_good_order_though_another_program_holds_its_database(daemon: RunningDaemon) -> None:
    job = submit(daemon.client, "long", LONG)
    daemon.client.wait(job, until={job_pb2.JOB_STATE_RUNNING}, timeout_s=PATIENCE_S)
    with held(daemon.home):
        assert at_moment(daemon.home, 2, PATIENCE_S)
        assert daemon.stop() == 0


def test_a_daemon_does_not_start_on_a_database_that_another_program_holds(daemon: RunningDaemon) -> None:
    daemon.stop()
    with held(daemon.home):
        refusal = serve(daemon.home)
    assert refusal.returncode == ExitCode.ERROR
    assert "locked" in one_sentence(refusal)
    daemon.start()


# Damage


def test_a_database_that_was_cut_is_refused_and_left_as_it_is(daemon: RunningDaemon) -> None:
    daemon.stop()
    database = Home(daemon.home).database
    cut = database.read_bytes()[: PAGE_BYTES * 2]
    database.write_bytes(cut)
    refusal = serve(daemon.home)
    assert refusal.returncode == ExitCode.ERROR
    assert "malformed" in one_sentence(refusal)
    assert database.read_bytes() == cut


def paused(name: str) -> Job:
    """A job that nobody will start."""
    return Job(
        number=0,
        name=name,
        spec=JobSpec(recipe="cifar", data="few"),
        position=1,
        create_time=1.0,
        state=JobState.PAUSED,
        times={"PAUSED": 1.0},
    )


@pytest.fixture
def long_history(quiet_daemon: RunningDaemon) -> RunningDaemon:
    """A daemon that is not started yet, whose database has a job with 3,000 events and 6,000 points."""
    with closing(Store(Home(quiet_daemon.home).database)) as store, store.transaction() as tx:
        made = tx.insert_job(paused("old"))
        tell_state(tx, made, 1.0, job_pb2.JOB_STATE_UNSPECIFIED)
        for step in range(3000):
            notice(tx, made, 1.0, event_pb2.SEVERITY_INFO, f"event number {step}.")
            tx.put_points(made.number, step, {"train/loss": 1.0, "train/accuracy": 0.5})
    return quiet_daemon


def damage(home: Path, content: bytes) -> bytes:
    """Overwrite the page that has a content; the file as it is then."""
    database = Home(home).database
    file = bytearray(database.read_bytes())
    page = file.index(content) // PAGE_BYTES * PAGE_BYTES
    assert page > 20 * PAGE_BYTES
    file[page : page + PAGE_BYTES] = b"\xff" * PAGE_BYTES
    database.write_bytes(file)
    return bytes(file)


def all_events(daemon: RunningDaemon) -> int:
    """Read the history to its end; how many events there are."""
    count, upto = 0, daemon.client.system_info().revision
    for response in daemon.client.watch(from_revision=1, timeout_s=PATIENCE_S):
        count += len(response.events)
        if response.cursor >= upto:
            break
    return count


def test_a_page_that_is_damaged_is_told_to_whoever_touches_it_and_the_daemon_stays_up(
    long_history: RunningDaemon,
) -> None:
    daemon = long_history
    daemon.start()
    assert all_events(daemon) > 3000
    daemon.stop()
    damage(daemon.home, b"event number 1500.")
    daemon.start()
    with pytest.raises(M1Error) as caught:
        all_events(daemon)
    assert caught.value.reason is Reason.STORE_DAMAGED
    assert f'the database "{Home(daemon.home).database}" is damaged' in caught.value.message
    assert "keep the file" in caught.value.hint
    assert daemon.client.get("old").id == "j1"
    assert daemon.client.metric_series("train/loss", "old").buckets


def test_after_an_unclean_end_a_damaged_database_is_found_and_not_changed_any_more(long_history: RunningDaemon) -> None:
    daemon = long_history
    daemon.start()
    daemon.client.cancel("old")
    daemon.kill()
    damaged = damage(daemon.home, b"event number 1500.")
    daemon.start()
    wait_for_log(daemon, "is damaged")
    (said,) = [line for line in daemon.log().splitlines() if "is damaged" in line]
    assert "keep the file" in said
    with pytest.raises(M1Error) as caught:
        submit(daemon.client, "never", SHORT)
    assert caught.value.reason is Reason.STORE_DAMAGED
    assert [job.name for job in daemon.client.list_jobs()] == ["old"]
    assert daemon.stop() == 0
    page = damaged.index(b"\xff" * PAGE_BYTES)
    assert Home(daemon.home).database.read_bytes()[page : page + PAGE_BYTES] == b"\xff" * PAGE_BYTES


def wait_for_log(daemon: RunningDaemon, text: str) -> None:
    """Until the daemon's log has a text: for what it tells nobody."""
    deadline, tick = time.monotonic() + PATIENCE_S, threading.Event()
    while text not in daemon.log():
        assert time.monotonic() < deadline, daemon.log()
        tick.wait(0.02)


@pytest.mark.parametrize(
    ("change", "touch"),
    [
        ("UPDATE jobs SET body = '{\"want\": '", lambda store: store.job(1)),
        ("UPDATE jobs SET body = '[]'", lambda store: store.jobs()),
        ("UPDATE jobs SET state = 'DANCING'", lambda store: store.job_by_name("old")),
        ("UPDATE events SET payload = x'ffff'", lambda store: store.events(0, 9, job=None, kinds=[1, 2, 3], limit=9)),
        ("INSERT INTO checkpoints VALUES (1, 5, '{}')", lambda store: store.checkpoint(1, 5)),
    ],
)
def test_content_that_cannot_be_read_is_damage_and_never_an_empty_answer(
    tmp_path: Path, change: str, touch: Callable[[Store], object]
) -> None:
    path = tmp_path / "m1d.sqlite"
    with closing(Store(path)) as store:
        with store.transaction() as tx:
            made = tx.insert_job(paused("old"))
            tell_state(tx, made, 1.0, job_pb2.JOB_STATE_UNSPECIFIED)
        assert touch(store) is not None or "checkpoints" in change
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute(change)
        with pytest.raises(StoreDamagedError, match="cannot be read"):
            touch(store)


def test_a_new_job_never_gets_the_directory_of_an_old_one_when_the_database_was_replaced(
    held_daemon: RunningDaemon,
) -> None:
    old = held_daemon.client.get("holder")
    held_daemon.client.wait(held_daemon.client.cancel("holder"), timeout_s=PATIENCE_S)
    held_daemon.stop()
    spec = (held_daemon.home / "jobs" / old.id / "spec.json").read_bytes()
    Home(held_daemon.home).database.unlink()
    held_daemon.start()
    new = held_daemon.client.wait(submit(held_daemon.client, "new", SHORT), timeout_s=PATIENCE_S)
    assert (old.id, new.id, new.state) == ("j1", "j2", job_pb2.JOB_STATE_SUCCEEDED)
    assert (held_daemon.home / "jobs" / old.id / "spec.json").read_bytes() == spec
