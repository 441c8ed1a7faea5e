"""A sweep over the daemon's failpoints: it is killed at each of them, and nothing that was promised is lost.

One scenario, driven by a client that repeats what was not answered. A run kills the daemon at several places, one
after the other: each daemon that follows is armed with the next, as far as the list goes.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from harness import LONG, PATIENCE_S, RunningDaemon, running_daemon
from m1 import failpoints
from m1.errors import M1Error, Reason
from m1.v1 import checkpoint_pb2, job_pb2
from m1ctl.sdk.client import connect
from proof import Census, Keeper, Watcher, check_checkpoints, check_events, persist, stored_events, submit

RUNNING, HELD, PAUSED = job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_HELD, job_pb2.JOB_STATE_PAUSED
SUCCEEDED, CANCELLED = job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_CANCELLED

SHORT: dict[str, bool | float | str] = {"epochs": 4, "batch_size": 12, "seed": 7}

CHAINS = {
    "start": [
        "before.commit",
        "after.commit",
        "after.publish",
        "before.spawn",
        "after.spawn",
        "before.adopt",
        "after.adopt",
        "before.desired",
        "after.desired",
        "before.ingest",
        "after.ingest",
        "before.settle",
        "after.settle",
    ],
    "later": [
        "before.desired:2",
        "after.desired:2",
        "before.commit:3",
        "after.commit:4",
        "after.publish:6",
        "before.ingest:4",
        "after.ingest:5",
    ],
    "parent and deletion": [
        "before.parent.copy",
        "after.parent.copy",
        "before.parent.move",
        "within.parent.move",
        "after.parent.move",
        "before.discard",
        "within.discard",
        "after.discard",
        "before.delete",
        "within.delete",
        "after.delete",
    ],
    "second start": ["before.spawn:2", "after.spawn:2", "after.settle"],
}
# Proved on databases of earlier versions, below.
MIGRATION = ["before.migrate", "after.backup"]


@dataclass
class Run:
    """What a client did, and what it was told."""

    daemon: RunningDaemon
    watcher: Watcher
    acknowledged: list[job_pb2.Job] = field(default_factory=list)
    checkpoints: list[checkpoint_pb2.Checkpoint] = field(default_factory=list)
    deleted: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.client = connect(self.daemon.home, timeout_s=PATIENCE_S)

    def submit(self, name: str, settings: dict[str, bool | float | str], from_checkpoint: str = "") -> str:
        job = submit(self.client, name, settings, from_checkpoint=from_checkpoint)
        self.acknowledged.append(job)
        return job.id

    def reach(self, job: str, *until: job_pb2.JobState) -> job_pb2.JobState:
        return persist(self.client, lambda: self.client.wait(job, until=until, timeout_s=PATIENCE_S)).state

    def get(self, job: str) -> job_pb2.Job:
        return persist(self.client, lambda: self.client.get(job))

    def ask(self, verb: str, job: str) -> None:
        """Ask for a change; one that was heard and not answered may be refused when it is asked for again."""
        call = {
            "pause": lambda: self.client.pause(job),
            "hold": lambda: self.client.pause(job, hold=True),
            "resume": lambda: self.client.resume(job),
            "cancel": lambda: self.client.cancel(job),
        }[verb]
        persist(self.client, call, lambda error: self.get(job) if error.reason is Reason.WRONG_STATE else None)

    def checkpoint(self, job: str) -> None:
        self.checkpoints.append(persist(self.client, lambda: self.client.create_checkpoint(job)))

    def delete(self, job: str) -> None:
        gone = {Reason.JOB_NOT_FOUND}
        persist(
            self.client,
            lambda: self.client.delete(job) or True,  # type: ignore[func-returns-value]
            lambda error: error.reason in gone or None,
        )
        self.deleted.add(job)

    def discard(self, checkpoint: str) -> None:
        gone = {Reason.CHECKPOINT_NOT_FOUND}
        persist(
            self.client,
            lambda: self.client.delete_checkpoint(checkpoint) or True,  # type: ignore[func-returns-value]
            lambda error: error.reason in gone or None,
        )

    def weights(self, job: str) -> str:
        return persist(self.client, lambda: list(self.client.list_checkpoints(job)))[0].weights_sha256


def scenario(run: Run, *, with_parent: bool) -> list[str]:
    """Every verb once and more. The jobs that were trained to the end."""
    long = run.submit("long", LONG)
    short = run.submit("short", SHORT)
    run.reach(long, RUNNING)
    run.ask("hold", long)
    assert run.reach(long, HELD) == HELD
    run.checkpoint(long)
    never = run.submit("never", SHORT)
    run.ask("cancel", never)
    run.delete(never)
    run.ask("resume", long)
    run.reach(long, RUNNING)
    run.ask("cancel", long)
    assert run.reach(long) == CANCELLED

    run.reach(short, RUNNING)
    run.ask("hold", short)
    if run.reach(short, HELD) == HELD:
        run.checkpoint(short)
        run.ask("pause", short)
        assert run.reach(short, PAUSED) == PAUSED
        run.ask("resume", short)
    assert run.reach(short) == SUCCEEDED
    trained = [short]
    oldest = persist(run.client, lambda: list(run.client.list_checkpoints(short)))[-1]
    if with_parent:
        trained.append(run.submit("heir", SHORT, from_checkpoint=oldest.id))
        assert run.reach(trained[-1]) == SUCCEEDED
    run.discard(oldest.id)
    run.delete(long)
    return trained


@pytest.fixture(scope="module")
def undisturbed(data_cache: Path) -> Iterator[str]:
    """The final weights of a job with the settings SHORT that nobody touches."""
    with running_daemon(data_cache) as daemon:
        job = submit(daemon.client, "undisturbed", SHORT)
        assert daemon.client.wait(job, timeout_s=PATIENCE_S).state == SUCCEEDED
        yield next(daemon.client.list_checkpoints(job.id)).weights_sha256


@pytest.mark.parametrize("name", CHAINS)
def test_a_daemon_that_is_killed_at_a_failpoint_loses_and_doubles_nothing(
    quiet_daemon: RunningDaemon, undisturbed: str, name: str, request: pytest.FixtureRequest
) -> None:
    home = quiet_daemon.home
    keeper, census = Keeper(quiet_daemon, CHAINS[name]), Census(home)
    request.addfinalizer(keeper.let_go)
    watcher = Watcher(home)
    run = Run(quiet_daemon, watcher)
    try:
        trained = scenario(run, with_parent="parent" in name)
    finally:
        keeper.check()
    weights = [run.weights(job) for job in trained]
    jobs = {job.id: job for job in persist(run.client, lambda: list(run.client.list_jobs()))}
    keeper.check()
    assert keeper.hit == CHAINS[name]
    stored = stored_events(home)
    lossless = [e for e in stored if e.WhichOneof("payload") not in {"metrics_recorded", "progress_changed"}]
    watcher.wait_for(lambda events: bool(events) and events[-1].revision >= lossless[-1].revision)
    watcher.end()
    census.end()
    keeper.end()
    run.client.close()

    check_events(stored_events(home), watcher.events)
    check_checkpoints(stored, run.checkpoints, home)
    assert census.looks > 10
    assert census.most == 1, census.crowd
    acknowledged = {job.id for job in run.acknowledged}
    assert len(acknowledged) == len(run.acknowledged)
    assert set(jobs) == acknowledged - run.deleted  # none lost, none twice
    assert {path.name for path in (home / "jobs").iterdir()} == {job for job in jobs if jobs[job].attempt}
    assert weights == [undisturbed] * len(trained)


@pytest.mark.parametrize("name", MIGRATION)
def test_a_daemon_that_is_killed_while_it_migrates_leaves_the_old_database_whole(
    quiet_daemon: RunningDaemon, name: str
) -> None:
    fixture = Path(__file__).parent.parent / "fixtures" / "store-v1.sql"
    with closing(sqlite3.connect(quiet_daemon.home / "m1d.sqlite")) as db:
        db.executescript(fixture.read_text())
        jobs = db.execute("SELECT count(*) FROM jobs").fetchone()[0]
    quiet_daemon.spawn(M1D_FAILPOINT=name)
    assert quiet_daemon.process is not None
    assert quiet_daemon.process.wait(PATIENCE_S) == -9
    with closing(sqlite3.connect(quiet_daemon.home / "m1d.sqlite")) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == 1
    quiet_daemon.start()
    assert len(list(quiet_daemon.client.list_jobs())) == jobs


def test_the_sweep_visits_every_failpoint_of_the_daemon_and_the_code_has_each_once() -> None:
    visited = {place.partition(":")[0] for chain in CHAINS.values() for place in chain} | set(MIGRATION)
    assert visited == set(failpoints.DAEMON)
    package = Path(__file__).parents[2] / "server" / "m1d"
    placed = [n for file in package.rglob("*.py") for n in re.findall(r'reach\("([a-z.]+)"\)', file.read_text())]
    assert sorted(placed) == sorted(failpoints.DAEMON)
    # A training process inherits the daemon's environment: what kills the one means nothing to the other.
    assert not set(failpoints.DAEMON) & set(failpoints.TRAINING)


@pytest.mark.parametrize("setting", ["nowhere", "before.commit:x", "before.commit:0", "before.commit=EWHAT"])
def test_a_failpoint_that_is_none_ends_the_daemon_with_one_sentence(quiet_daemon: RunningDaemon, setting: str) -> None:
    from test_home import serve

    refusal = serve(quiet_daemon.home, M1D_FAILPOINT=setting)
    assert refusal.returncode == 1
    (sentence,) = refusal.stderr.splitlines()
    assert sentence.startswith(f'M1D_FAILPOINT="{setting}" ')
    assert "name:visit" in sentence


def test_two_submits_of_one_request_are_one_job_though_the_first_was_not_answered(quiet_daemon: RunningDaemon) -> None:
    quiet_daemon.start(M1D_FAILPOINT="after.commit")
    with pytest.raises(M1Error) as caught:
        quiet_daemon.client.connection.unary(
            _submit_stub(quiet_daemon), job_pb2.SubmitJobRequest(spec=job_pb2.JobSpec(recipe="cifar"), request_id="r")
        )
    assert caught.value.reason is Reason.UNREACHABLE
    quiet_daemon.start()
    (job,) = quiet_daemon.client.list_jobs()
    again = quiet_daemon.client.submit("cifar", request_id="r")
    assert again.id == job.id
    assert [job.id for job in quiet_daemon.client.list_jobs()] == [job.id]


def _submit_stub(daemon: RunningDaemon) -> Callable[..., Any]:
    from m1.v1 import job_pb2_grpc

    submit_job: Callable[..., Any] = job_pb2_grpc.JobServiceStub(daemon.client.connection.channel).SubmitJob
    return submit_job
