"""What must be true after any number of deaths: a daemon that is started again, a watcher, clients, and the checks.

Used by the sweep over the failpoints (daemon/test_sweep.py) and by the storm (test_storm.py).
"""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc
from harness import PATIENCE_S, RunningDaemon
from m1.errors import M1Error, Reason
from m1.jobdir import checkpoint_path, checkpoints_path
from m1.journal import Phase, Plan, Record, journal_path, read_journal
from m1.paths import Home
from m1.v1 import checkpoint_pb2, event_pb2, job_pb2, job_pb2_grpc
from m1ctl.sdk.client import Client, connect
from m1d.jobs.states import ACTIVE, TRANSITIONS, JobState

Settings = Mapping[str, bool | float | str]
T = TypeVar("T")

WATCHED = (event_pb2.EVENT_KIND_STATE, event_pb2.EVENT_KIND_CHECKPOINT, event_pb2.EVENT_KIND_NOTICE)
# Metrics that depend on the clock, not on what is trained.
_CLOCKED = ("train/samples_per_s", "train/seconds/")
_GONE = {Reason.UNREACHABLE, Reason.SHUTTING_DOWN, Reason.TIMED_OUT}


class Keeper:
    """Starts the daemon again whenever it dies; the first ones with a failpoint each, until each has been hit."""

    def __init__(self, daemon: RunningDaemon, failpoints: Sequence[str] = ()) -> None:
        self.daemon = daemon
        self.hit: list[str] = []
        self.deaths = 0
        self.problem = ""
        self._failpoints = list(failpoints)
        self._ending = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._start()
        self._thread.start()

    def _start(self) -> None:
        armed = self._failpoints[len(self.hit)] if len(self.hit) < len(self._failpoints) else ""
        self.daemon.spawn(**({"M1D_FAILPOINT": armed} if armed else {}))

    def _keep(self) -> None:
        while True:
            process = self.daemon.process
            assert process is not None
            status = process.wait()
            if self._ending:
                return
            if status != -signal.SIGKILL:
                self.problem = f"the daemon ended with status {status}"
                return
            if len(self.hit) < len(self._failpoints):
                self.hit.append(self._failpoints[len(self.hit)])
            self._start()
            with self._changed:
                self.deaths += 1
                self._changed.notify_all()

    def kill(self) -> None:
        """SIGKILL the daemon; returns when another one has been started, which need not serve yet."""
        before = self.deaths
        assert self.daemon.process is not None
        self.daemon.process.kill()
        with self._changed:
            assert self._changed.wait_for(lambda: self.deaths > before or self.problem, PATIENCE_S)

    def let_go(self) -> None:
        """Start no more daemons: the test is over, well or not."""
        self._ending = True

    def check(self) -> None:
        """Every daemon that ended was killed, and the present one lives."""
        assert not self.problem, f"{self.problem}\n{self.daemon.log()[-3000:]}"

    def end(self) -> None:
        """Stop it in good order."""
        self.let_go()
        assert self.daemon.process is not None
        self.daemon.process.terminate()
        self._thread.join(PATIENCE_S)


class Watcher:
    """Watches all state changes, checkpoints and notices, across every death of the daemon, by its cursor."""

    def __init__(self, home: Path) -> None:
        self.events: list[event_pb2.Event] = []
        self.error: M1Error | None = None
        self._changed = threading.Condition()
        self._client = connect(home, timeout_s=PATIENCE_S)
        assert self._client.connection.wait_until_ready(PATIENCE_S)
        self._client.system_info()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        try:
            for response in self._client.watch(from_revision=1, kinds=WATCHED, give_up_s=PATIENCE_S):
                with self._changed:
                    self.events.extend(response.events)
                    self._changed.notify_all()
        except M1Error as error:
            self.error = error
        except (grpc.RpcError, ValueError):
            return  # the channel was closed: the end

    def wait_for(self, condition: Callable[[Sequence[event_pb2.Event]], T | None], timeout_s: float = PATIENCE_S) -> T:
        """What the condition makes of the events seen, as soon as that is something."""
        found: list[T] = []

        def look() -> bool:
            value = condition(self.events)
            found[:] = [] if value is None or value is False else [value]
            return bool(found) or self.error is not None

        with self._changed:
            assert self._changed.wait_for(look, timeout_s), "nothing of the kind was seen in time"
        assert found, self.error
        return found[0]

    def wait_until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Return when the condition holds, which is asked after every event, or when it has taken too long."""
        with self._changed:
            self._changed.wait_for(condition, timeout_s)

    def wait_for_more(self, count: int, timeout_s: float) -> None:
        """Return when that many more events have been seen, or when it has been quiet for too long."""
        upto = len(self.events) + count
        self.wait_until(lambda: len(self.events) >= upto, timeout_s)

    def state_of(self, job_id: str) -> job_pb2.JobState:
        """The last state that was told of a job."""
        return next(e.state_changed.to for e in reversed(self.events) if e.job_id == job_id and is_change(e))

    def end(self) -> None:
        """Stop watching."""
        self._client.close()
        self._thread.join(PATIENCE_S)


class Census:
    """Counts the training processes of a home, again and again: there is never more than one."""

    def __init__(self, home: Path) -> None:
        self.most = 0
        self.looks = 0
        self.crowd: list[str] = []
        self._home = home
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._count, daemon=True)
        self._thread.start()

    def _count(self) -> None:
        while not self._ended.wait(0.05):
            found = training_pids(self._home)
            # A look takes a while: one may have gone before the other came.
            if len(found) > 1:
                again = set(training_pids(self._home))
                found = [pid for pid in found if pid in again]
            if len(found) > 1:
                self.crowd = [_described(pid) for pid in found]
            self.most = max(self.most, len(found))
            self.looks += 1

    def end(self) -> None:
        """Stop counting."""
        self._ended.set()
        self._thread.join(PATIENCE_S)


@dataclass(frozen=True)
class Attempt:
    """A living training process, and what it does as its files show it."""

    pid: int
    directory: Path
    number: int

    def records(self) -> list[Record]:
        """What it has journalled."""
        return [entry.record for entry in read_journal(journal_path(self.directory, self.number), 0, 2**28)]

    def writes(self) -> bool:
        """Whether it writes a checkpoint, or removes one."""
        return any(checkpoints_path(self.directory).glob(".tmp-*"))

    def place(self) -> str:
        """Where it is; or was, when it has just been killed."""
        if self.writes():
            return "writing a checkpoint"
        records = self.records()
        phases = [record.name for record in records if isinstance(record, Phase)]
        if not any(isinstance(record, Plan) for record in records):
            return "starting"
        return {"train": "in steps", "validate": "validating", "test": "testing"}.get(phases[-1], phases[-1])

    def lives(self) -> bool:
        """Whether it has not ended yet."""
        import psutil

        try:
            return bool(psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    def kill(self) -> bool:
        """SIGKILL; whether it lived."""
        lived = self.lives()
        if lived:
            os.kill(self.pid, signal.SIGKILL)
        return lived


def attempts(home: Path) -> list[Attempt]:
    """The living training processes of a home: those of attempts, by their command line."""
    import psutil

    jobs = str(Home(home).jobs)
    parents, found = {}, []
    for process in psutil.process_iter(["cmdline", "ppid"]):
        command = process.info["cmdline"] or []
        if "m1train" in command and "run" in command and any(word.startswith(jobs) for word in command):
            parents[process.pid] = process.info["ppid"]
            found.append(Attempt(process.pid, Path(command[command.index("run") + 1]), int(command[-1])))
    # A library's helper has its parent's command line until it executes its own.
    return [attempt for attempt in found if parents[attempt.pid] not in parents]


def training_pids(home: Path) -> list[int]:
    """The living training processes of a home."""
    return [attempt.pid for attempt in attempts(home)]


# A moment in an attempt: after so many more records of its journal, or while it writes a checkpoint.
Moment = int
WRITING: Moment = -1


def at_moment(home: Path, moment: Moment, patience_s: float) -> Attempt | None:
    """Return at a moment of the attempt that lives, or when nothing moves any more; the attempt, if one lives.

    `patience_s` is from one record to the next, and from one attempt to the next.
    """
    tick, moved_at = threading.Event(), time.monotonic()
    attempt, upto, records = None, 0, 0
    while time.monotonic() < moved_at + patience_s:
        if attempt is None or not attempt.lives():
            attempt = next(iter(attempts(home)), None)
            upto = len(attempt.records()) + moment if attempt else 0
        if attempt:
            before, records = records, len(attempt.records())
            if attempt.writes() if moment == WRITING else records >= upto:
                return attempt
            if records != before:
                moved_at = time.monotonic()
        tick.wait(0.004 if attempt else 0.05)
    return attempt


def _described(pid: int) -> str:
    import psutil

    try:
        return str(psutil.Process(pid).as_dict(["pid", "ppid", "status", "create_time", "cmdline"]))
    except psutil.NoSuchProcess:
        return f"{pid}, gone"


def is_change(event: event_pb2.Event) -> bool:
    """Whether it tells of a change of state."""
    return bool(event.WhichOneof("payload") == "state_changed")


def persist(client: Client, call: Callable[[], T], done: Callable[[M1Error], T | None] = lambda _: None) -> T:
    """Call until the daemon has answered. A refusal after an unanswered call may mean that it had been heard: `done`.

    Raises:
        M1Error: what the daemon answered.
    """
    unanswered = False
    while True:
        try:
            return call()
        except M1Error as error:
            if error.reason in _GONE:
                unanswered = True
                assert client.connection.wait_until_ready(PATIENCE_S), "no daemon came back"
                continue
            heard = done(error) if unanswered else None
            if heard is None:
                raise
            return heard


def submit(
    client: Client, name: str, settings: Settings, *, data: str = "few", from_checkpoint: str = "", retries: int = 1000
) -> job_pb2.Job:
    """Submit under one request_id until it is answered."""
    spec = job_pb2.JobSpec(
        recipe="cifar", data=data, from_checkpoint=from_checkpoint, profile=job_pb2.Profile(threads=1), retries=retries
    )
    spec.settings.update(dict(settings))
    request = job_pb2.SubmitJobRequest(spec=spec, name=name, request_id=f"{name}-{os.urandom(8).hex()}")
    stub = job_pb2_grpc.JobServiceStub(client.connection.channel)
    answer: job_pb2.SubmitJobResponse = persist(client, lambda: client.connection.unary(stub.SubmitJob, request))
    return answer.job


# What must be true


def stored_events(home: Path) -> list[event_pb2.Event]:
    """Every event in the store, by revision, read past the daemon."""
    with closing(sqlite3.connect(f"file:{Home(home).database}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT revision, payload FROM events ORDER BY revision").fetchall()
    events = [event_pb2.Event.FromString(payload) for _, payload in rows]
    assert [event.revision for event in events] == [revision for revision, _ in rows]
    return events


def check_events(stored: Sequence[event_pb2.Event], watched: Sequence[event_pb2.Event]) -> None:
    """Nothing doubled, nothing missed, nothing told that is not stored; every transition legal, one job at a time."""
    assert [event.revision for event in stored] == list(range(1, len(stored) + 1))
    kept = {"state_changed", "job_deleted", "checkpoint_created", "checkpoint_deleted", "notice_raised"}
    lossless = [event for event in stored if event.WhichOneof("payload") in kept]
    seen = [event.revision for event in watched]
    assert seen == [event.revision for event in lossless][: len(seen)], "the watcher was told something else"
    assert [event.SerializeToString(deterministic=True) for event in watched] == [
        event.SerializeToString(deterministic=True) for event in lossless[: len(seen)]
    ]
    assert len(seen) == len(lossless), f"the watcher missed {len(lossless) - len(seen)} events"
    _check_transitions(stored)
    _check_steps(stored)


def _check_transitions(stored: Iterable[event_pb2.Event]) -> None:
    at: dict[str, JobState] = {}
    for event in stored:
        if event.WhichOneof("payload") == "job_deleted":
            assert at.pop(event.job_id) in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}
        if not is_change(event):
            continue
        change = event.state_changed
        before, after = state_of(getattr(change, "from")), state_of(change.to)
        assert at.get(event.job_id) == before, f"{event.job_id} was {at.get(event.job_id)}, told as {before}"
        if before is None:
            assert after == JobState.QUEUED
        else:
            assert after in TRANSITIONS[before], f"{event.job_id}: {before} -> {after}"
        assert after is not None
        at[event.job_id] = after
        busy = [job for job, state in at.items() if state in ACTIVE]
        assert len(busy) <= 1, f"revision {event.revision}: {busy} at once"


def _check_steps(stored: Iterable[event_pb2.Event]) -> None:
    """Within an attempt every step is told once, in order: the journal was taken in exactly once."""
    last: dict[str, int] = defaultdict(int)
    for event in stored:
        if is_change(event) and event.state_changed.to == job_pb2.JOB_STATE_STARTING:
            last[event.job_id] = 0
        elif event.WhichOneof("payload") == "metrics_recorded" and "train/loss" in event.metrics_recorded.values:
            step = event.metrics_recorded.step
            expected = last[event.job_id] + 1
            assert step == expected or expected == 1, f"{event.job_id}: step {step} after {last[event.job_id]}"
            last[event.job_id] = step


def check_checkpoints(
    stored: Iterable[event_pb2.Event], acknowledged: Iterable[checkpoint_pb2.Checkpoint], home: Path
) -> None:
    """Each acknowledged checkpoint is stored with its hash, and whole on the disk, unless its deletion was told."""
    created: dict[str, str] = {}
    gone = set()
    for event in stored:
        payload = event.WhichOneof("payload")
        if payload == "checkpoint_created":
            made = event.checkpoint_created.checkpoint
            known = created.setdefault(made.id, made.weights_sha256)
            assert known == made.weights_sha256, f"{made.id} was made again with other weights"
            gone.discard(made.id)
        elif payload == "checkpoint_deleted":
            gone.add(event.checkpoint_deleted.checkpoint_id)
        elif payload == "job_deleted":
            gone |= {made for made in created if made.startswith(f"{event.job_id}@")}
    for checkpoint in acknowledged:
        assert created.get(checkpoint.id) == checkpoint.weights_sha256
    for name in created.keys() - gone:
        job_id, _, step = name.partition("@")
        weights = checkpoint_path(Home(home).job(job_id), int(step)) / "weights.safetensors"
        assert hashlib.sha256(weights.read_bytes()).hexdigest() == created[name], f"{name} is not what was written"


def pure_metrics(stored: Iterable[event_pb2.Event]) -> dict[str, dict[tuple[int, str], float]]:
    """By job, every metric that is a pure function of the training; what was computed twice must be the same."""
    found: dict[str, dict[tuple[int, str], float]] = defaultdict(dict)
    for event in stored:
        if event.WhichOneof("payload") == "metrics_recorded":
            told = event.metrics_recorded
            for name, value in told.values.items():
                if not name.startswith(_CLOCKED):
                    known = found[event.job_id].setdefault((told.step, name), value)
                    assert known == value, f"{event.job_id}: {name} of step {told.step} was {known}, then {value}"
    return found


def state_of(state: job_pb2.JobState) -> JobState | None:
    """The daemon's word for a state; None for no state."""
    word = job_pb2.JobState.Name(state).removeprefix("JOB_STATE_")
    return None if word == "UNSPECIFIED" else JobState(word)
