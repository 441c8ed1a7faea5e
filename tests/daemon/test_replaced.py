"""The database is deleted or replaced while a daemon runs: nothing is answered and lost, and no training left alone."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from harness import LONG, PATIENCE_S, RunningDaemon
from m1.errors import ExitCode, M1Error, Reason
from m1.jobdir import checkpoints_path
from m1.journal import Exited, journal_path, read_journal
from m1.paths import Home
from m1.v1 import job_pb2
from m1d.running.left_behind import last_attempt
from m1d.store import Store, StoreReplacedError
from proof import submit, training_pids
from test_store import add_job

RUNNING, CANCELLED = job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_CANCELLED


def delete(path: Path) -> None:
    path.rename(path.with_name("aside"))


def delete_its_log(path: Path) -> None:
    delete(path.with_name(f"{path.name}-wal"))


def put_another_in_its_place(path: Path) -> None:
    delete(path)
    shutil.copyfile(path.with_name("aside"), path)


def write_another_over_it(path: Path) -> None:
    other = path.with_name("other")
    Store(other).close()
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize(
    ("happens", "said"),
    [
        (delete, 'db" was deleted'),
        (delete_its_log, 'db-wal" was deleted'),
        (put_another_in_its_place, "another file was put in the place of"),
        (write_another_over_it, "another database was written over"),
    ],
)
def test_a_database_that_is_not_at_its_path_any_more_takes_no_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, happens: Callable[[Path], None], said: str
) -> None:
    store = Store(tmp_path / "db")
    add_job(store, "before")
    happens(tmp_path / "db")
    for _ in range(3):
        with pytest.raises(StoreReplacedError, match=said):
            add_job(store, "lost")
    with pytest.raises(StoreReplacedError):
        store.forget_events(1, 1)
    assert len(caplog.records) == 1
    if happens is not write_another_over_it:
        assert [job.name for job in store.jobs()] == ["before"], "what can be read is read"
    there = {path.name for path in tmp_path.iterdir()}
    store.close()
    assert {path.name for path in tmp_path.iterdir()} == there, "what lies there now is left alone"


def test_one_that_is_deleted_in_the_middle_of_a_change_is_an_error_and_no_answer(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    with pytest.raises(StoreReplacedError), store.transaction():
        delete(tmp_path / "db")
    (tmp_path / "aside").rename(tmp_path / "db")
    assert add_job(store, "it was put back").number == 1
    store.close()


def test_a_database_keeps_its_number_and_one_of_an_earlier_version_gets_one(tmp_path: Path) -> None:
    numbers = []
    for _ in range(2):
        Store(tmp_path / "db").close()
        with closing(sqlite3.connect(tmp_path / "db")) as db:
            numbers.append(db.execute("PRAGMA application_id").fetchone()[0])
    assert numbers[0] == numbers[1] != 0


def test_the_newest_attempt_of_a_directory_is_known_by_its_journals(tmp_path: Path) -> None:
    assert last_attempt(tmp_path) == 0
    for name in ("journal-2", "journal-10", "journal-x", "log"):
        (tmp_path / name).touch()
    assert last_attempt(tmp_path) == 10


def test_a_submit_into_a_deleted_database_is_refused_and_its_training_is_seen_off_by_the_next_daemon(
    held_daemon: RunningDaemon,
) -> None:
    home, client = Home(held_daemon.home), held_daemon.client
    job = client.get("holder")
    for path in home.root.glob("m1d.sqlite*"):
        path.unlink()
    with pytest.raises(M1Error, match="was deleted while the daemon ran") as caught:
        submit(client, "lost", LONG)
    assert (caught.value.reason, caught.value.exit_code) == (Reason.STORE_REPLACED, ExitCode.ERROR)
    assert [job.name for job in client.list_jobs()] == ["holder"]
    assert held_daemon.m1ctl("pause", "holder").returncode == ExitCode.ERROR
    assert held_daemon.log().count("was deleted while it was in use") == 1
    assert held_daemon.stop() == 0
    assert training_pids(held_daemon.home) == [job.pid]
    held_daemon.start()
    following = submit(held_daemon.client, "next", LONG)
    assert int(following.id[1:]) > int(job.id[1:])
    following = held_daemon.client.wait(following, until={RUNNING}, timeout_s=PATIENCE_S)
    assert training_pids(held_daemon.home) == [following.pid], "they never train at the same time"
    *_, last = read_journal(journal_path(home.job(job.id), 1), 0, 2**28)
    assert last.record == Exited("yielded", step=last.record.step)  # type: ignore[union-attr]
    assert list(checkpoints_path(home.job(job.id)).iterdir()), "what it had trained is there"
    assert f'a training process lives in "{home.job(job.id)}"' in held_daemon.log()


def test_a_job_that_was_queued_in_the_copy_that_was_put_back_goes_on_from_its_checkpoint(
    held_daemon: RunningDaemon,
) -> None:
    home, client = Home(held_daemon.home), held_daemon.client
    job = submit(client, "later", LONG)
    with closing(sqlite3.connect(home.database)) as db, closing(sqlite3.connect(home.root / "copy")) as copy:
        db.backup(copy)
    client.cancel("holder")
    client.wait(job, until={RUNNING}, timeout_s=PATIENCE_S)
    held_daemon.kill()
    for path in home.root.glob("m1d.sqlite*"):
        path.unlink()
    (home.root / "copy").rename(home.database)
    held_daemon.start()
    client = held_daemon.client
    assert client.wait("holder", timeout_s=PATIENCE_S).state == CANCELLED, "as its journal says"
    again = client.wait(client.get("later"), until={RUNNING}, timeout_s=PATIENCE_S)
    assert again.attempt == 2
    assert again.reason.startswith("goes on from step")
