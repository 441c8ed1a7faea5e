"""The storm: random verbs from several clients at once, and SIGKILLs of the daemon and of the training process.

Hypothesis' stateful testing draws what happens, from a seed; the real daemon and real training processes answer. What
is asked runs in the threads of the clients while the next thing is drawn, so the order in which the daemon sees it is
the system's; what was asked, and when who was killed, follows from the seed.

A kill comes at a drawn moment of the attempt that lives: at once, after so many more records of its journal, or while
it writes a checkpoint. After it the storm sees to it that there is something to train, and now and then it lets a job
come to its end.

The model is the table of transitions, replayed over the stored events: every answer must show the state that the job
had at the answer's revision, every refusal a state in which the verb may be refused, a checkpoint that was acknowledged
is there, every metric is the one of an undisturbed run, and so are the weights of whatever succeeded.

    make storm N=200 SEED=7      a long one
    make test                    has a short one
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest
from harness import PATIENCE_S, RunningDaemon, make_home, running_daemon
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from m1.errors import M1Error, Reason
from m1.v1 import checkpoint_pb2, event_pb2, job_pb2
from m1ctl.sdk.client import connect
from m1d.jobs.states import ACTIVE, FINAL, JobState
from proof import (
    WRITING,
    Census,
    Keeper,
    Moment,
    Watcher,
    at_moment,
    check_checkpoints,
    check_events,
    is_change,
    persist,
    pure_metrics,
    state_of,
    stored_events,
    submit,
)

KILLS = int(os.environ.get("STORM_KILLS") or 6)
SEED = int(os.environ.get("STORM_SEED") or 1)

CLIENTS = 3
MOST_UNFINISHED = 3
# How long a kill waits for its moment while nothing moves, a client for its checkpoint, the storm for a job to end.
MOMENT_S = 5.0
CHECKPOINT_S = 30.0
END_S = 20.0
# A kill of a daemon that has just been started waits for an event no longer than this.
QUIET_S = 1.0
VARIANTS: list[dict[str, bool | float | str]] = [
    {"epochs": 2, "batch_size": 12, "seed": 1},
    {"epochs": 2, "batch_size": 24, "seed": 2},
]

S = JobState
# What an answer may show, and in which states the verb may not be refused.
ANSWERS: dict[str, frozenset[JobState]] = {
    "pause": frozenset({S.YIELDING, S.PAUSED}),
    "hold": frozenset({S.STARTING, S.RUNNING, S.HELD}),
    "resume": frozenset({S.QUEUED, S.STARTING, S.RUNNING, S.HELD}),
    "cancel": frozenset({S.CANCELLED}) | ACTIVE,
    "retry": frozenset({S.QUEUED}),
}
NEVER_REFUSED: dict[str, frozenset[JobState]] = {
    "pause": frozenset({S.QUEUED, S.PAUSED}),
    "hold": frozenset(),
    "resume": frozenset({S.PAUSED}),
    "cancel": frozenset({S.QUEUED, S.PAUSED}) | ACTIVE,
    "retry": frozenset({S.FAILED, S.CANCELLED}),
    "checkpoint": frozenset(),
    "delete": FINAL,
}


@dataclass(frozen=True)
class Answer:
    """What a client was told of a job, and as of which revision."""

    verb: str
    job: str
    state: JobState | None
    revision: int


class Asker:
    """One client: does what it is given, one after the other, in its own thread."""

    def __init__(self, home: Path, world: World) -> None:
        self.client = connect(home, timeout_s=PATIENCE_S)
        self._world = world
        self._todo: queue.Queue[Callable[[], None] | None] = queue.Queue(maxsize=3)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def do(self, work: Callable[[], None]) -> None:
        """Begin soon; waits when much is waiting already."""
        self._todo.put(work, timeout=PATIENCE_S)

    def _work(self) -> None:
        while (work := self._todo.get()) is not None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised again by the storm, in its own thread
                self._world.failures.append(error)

    def finish(self) -> None:
        """Do what is left, and end."""
        self._todo.put(None)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "a client still waits for an answer"
        self.client.close()

    def ask(self, verb: str, job: str) -> None:
        """Ask for a change of a job, and hold the answer against the model."""
        calls: dict[str, Callable[[], job_pb2.Job]] = {
            "pause": lambda: self.client.pause(job),
            "hold": lambda: self.client.pause(job, hold=True),
            "resume": lambda: self.client.resume(job),
            "cancel": lambda: self.client.cancel(job),
            "retry": lambda: self.client.retry(job),
        }

        def told() -> None:
            answer = calls[verb]()
            state = state_of(answer.state)
            assert state in ANSWERS[verb], f"{verb} {job} was answered with {state}"
            self._world.answers.append(Answer(verb, job, state, answer.revision))

        if verb == "cancel":
            self._world.cancelled.add(job)
        self._allowing_refusal(verb, told)

    def checkpoint(self, job: str, answered: threading.Event) -> None:
        """Ask for a checkpoint; it is promised from the answer on."""
        try:
            self._allowing_refusal(
                "checkpoint", lambda: self._world.checkpoints.append(self.client.create_checkpoint(job, PATIENCE_S))
            )
        finally:
            answered.set()

    def delete(self, job: str) -> None:
        """Ask for a deletion."""
        self._allowing_refusal("delete", lambda: self.client.delete(job))

    def _allowing_refusal(self, verb: str, call: Callable[[], object]) -> None:
        try:
            persist(self.client, lambda: (call(), True))
        except M1Error as error:
            # Somebody else may have deleted it, or it is not in the state that the client believes.
            if error.reason is Reason.JOB_NOT_FOUND:
                return
            said = str(error).partition(" while it is ")[2].partition(":")[0]
            if error.reason is not Reason.WRONG_STATE or S(said) in NEVER_REFUSED[verb]:
                raise


class World:
    """One home in the storm, and all that is remembered of it."""

    def __init__(self, daemon: RunningDaemon, kills: int) -> None:
        self.kills = kills
        self.home = daemon.home
        self.keeper = Keeper(daemon)
        self.watcher = Watcher(daemon.home)
        self.census = Census(daemon.home)
        self.failures: list[BaseException] = []
        self.answers: list[Answer] = []
        self.checkpoints: list[checkpoint_pb2.Checkpoint] = []
        self.submitted: dict[str, int] = {}
        self.cancelled: set[str] = set()
        self.killed_at: Counter[str] = Counter()
        """The kills of the training, by what it was doing."""
        self.askers = [Asker(daemon.home, self) for _ in range(CLIENTS)]

    @property
    def done(self) -> bool:
        """Whether the storm has killed enough, or found something."""
        return self.keeper.deaths + self.killed_at.total() >= self.kills or bool(self.failures)

    def raise_failure(self) -> None:
        """What a client's thread has found."""
        if self.failures:
            raise self.failures[0]
        self.keeper.check()

    def unfinished(self) -> dict[str, JobState | None]:
        """The jobs that are not in a final state, the newest last, and the state, as far as the watcher has heard."""
        states: dict[str, JobState | None] = dict.fromkeys(list(self.submitted))
        states |= {e.job_id: state_of(e.state_changed.to) for e in list(self.watcher.events) if is_change(e)}
        return {job: state for job, state in states.items() if state not in FINAL}

    def ended(self) -> int:
        """How often a job has come to its end."""
        return sum(1 for e in list(self.watcher.events) if is_change(e) and state_of(e.state_changed.to) in FINAL)

    def kill_the_training(self, moment: Moment) -> None:
        """SIGKILL the attempt that lives, at a moment of it."""
        attempt = at_moment(self.home, moment, MOMENT_S)
        if attempt and attempt.kill():
            self.killed_at[attempt.place()] += 1

    def submit(self, asker: Asker, variant: int) -> None:
        """Submit a job of a variant."""
        job = submit(asker.client, "", VARIANTS[variant])
        self.submitted[job.id] = variant
        self.answers.append(Answer("submit", job.id, state_of(job.state), job.revision))

    def drain(self) -> None:
        """Let every job come to its end: resume what is paused or held, and wait."""
        for asker in self.askers:
            asker.finish()
        self.raise_failure()
        client = connect(self.home, timeout_s=PATIENCE_S)
        assert client.connection.wait_until_ready(PATIENCE_S)
        resumed: dict[str, int] = {}

        def stands(events: Sequence[event_pb2.Event]) -> tuple[str, int] | bool | None:
            """A job that waits for a resume, True when all are over, or None when they train."""
            last: dict[str, event_pb2.Event] = {e.job_id: e for e in events if is_change(e)}
            for job, event in last.items():
                if event.state_changed.to in {job_pb2.JOB_STATE_PAUSED, job_pb2.JOB_STATE_HELD} and (
                    resumed.get(job) != event.revision
                ):
                    return job, event.revision
            if set(self.submitted) <= last.keys() and all(
                state_of(last[job].state_changed.to) in FINAL for job in self.submitted
            ):
                return True
            return None

        while True:
            heard = len(self.watcher.events)
            found = stands(self.watcher.events[:heard])
            if found is True:
                break
            if not isinstance(found, tuple):  # patience is from one event to the next: many jobs may be left
                self.watcher.wait_until(lambda heard=heard: len(self.watcher.events) > heard, PATIENCE_S)  # type: ignore[misc]
                log = self.keeper.daemon.log()[-2000:]
                assert len(self.watcher.events) > heard, (
                    f"nothing moves {self.unfinished()} {self.watcher.error}\n{log}"
                )
                continue
            job, resumed[job] = found
            try:
                client.resume(job)
            except M1Error as error:
                if error.reason is not Reason.WRONG_STATE:
                    raise
        newest = client.system_info().revision
        assert newest >= self.watcher.events[-1].revision
        client.close()

    def check(self, undisturbed: list[Result]) -> tuple[int, int]:
        """Everything that was promised. How many jobs succeeded, and how many of them with the undisturbed weights."""
        stored = stored_events(self.home)
        kinds = {"metrics_recorded", "progress_changed"}
        last = max(event.revision for event in stored if event.WhichOneof("payload") not in kinds)
        self.watcher.wait_for(lambda events: bool(events) and events[-1].revision >= last)
        self.watcher.end()
        self.census.end()
        self.keeper.check()
        self.keeper.end()
        check_events(stored, self.watcher.events)
        check_checkpoints(stored, self.checkpoints, self.home)
        assert self.census.most <= 1, self.census.crowd
        self._check_answers(stored)
        return self._check_weights(stored, undisturbed)

    def _check_answers(self, stored: list[event_pb2.Event]) -> None:
        at: dict[str, list[tuple[int, JobState | None]]] = {}
        for event in stored:
            if is_change(event):
                at.setdefault(event.job_id, []).append((event.revision, state_of(event.state_changed.to)))
        for answer in self.answers:
            state = [s for revision, s in at[answer.job] if revision <= answer.revision][-1]
            assert state == answer.state, f"{answer}, but it was {state} then"

    def _check_weights(self, stored: list[event_pb2.Event], undisturbed: list[Result]) -> tuple[int, int]:
        newest: dict[str, checkpoint_pb2.Checkpoint] = {}
        succeeded, identical = 0, 0
        assert {event.job_id for event in stored if is_change(event)} == set(self.submitted)
        for job, metrics in pure_metrics(stored).items():
            expected = undisturbed[self.submitted[job]].metrics
            assert metrics == {key: expected.get(key) for key in metrics}, f"{job} has computed something else"
        for event in stored:
            if event.WhichOneof("payload") == "checkpoint_created":
                made = event.checkpoint_created.checkpoint
                if event.job_id not in newest or made.step >= newest[event.job_id].step:
                    newest[event.job_id] = made
            if not is_change(event):
                continue
            change = event.state_changed
            assert change.to != job_pb2.JOB_STATE_FAILED, change.reason
            if change.to == job_pb2.JOB_STATE_CANCELLED:
                assert event.job_id in self.cancelled
            if change.to == job_pb2.JOB_STATE_SUCCEEDED:
                succeeded += 1
                identical += newest[event.job_id].weights_sha256 == undisturbed[self.submitted[event.job_id]].weights
        assert identical == succeeded, f"{succeeded - identical} of {succeeded} jobs ended with other weights"
        return succeeded, identical


class Storm(RuleBasedStateMachine):
    """What can happen. One world for all the examples of a storm."""

    world: World
    clients = st.integers(0, CLIENTS - 1)
    # An attempt writes about 40 records: what comes after more of them spares it. The first examples prefer the first.
    moments = st.sampled_from([*range(14, 60, 4), 2, 6, 10, WRITING, WRITING, WRITING, 0, 0])

    def _do(self, client: int, work: Callable[[Asker], None]) -> None:
        self.world.raise_failure()
        if not self.world.done:
            asker = self.world.askers[client]
            asker.do(lambda: work(asker))

    def _job(self, slot: int, *, over: bool = False) -> str | None:
        """A slot stands for one of the jobs that are not over, or of the last six; the newest first."""
        jobs = list(self.world.submitted)[-6:] if over else list(self.world.unfinished())
        return jobs[-1 - slot % len(jobs)] if jobs else None

    def _go_on(self, client: int, variant: int = 0) -> None:
        """See to it that something trains: resume what stands, or submit another."""
        states = self.world.unfinished()
        standing = [job for job, state in states.items() if state in {S.HELD, S.PAUSED}]
        held = [job for job in standing if states[job] == S.HELD]
        if held or (standing and len(standing) == len(states)):
            job = (held or standing)[-1]
            self._do(client, lambda asker: asker.ask("resume", job))
        elif not states:
            self._do(client, lambda asker: self.world.submit(asker, variant))

    @rule(client=clients, variant=st.integers(0, len(VARIANTS) - 1))
    def submit(self, client: int, variant: int) -> None:
        if len(self.world.unfinished()) < MOST_UNFINISHED:
            self._do(client, lambda asker: self.world.submit(asker, variant))

    @rule(
        client=clients,
        slot=st.integers(0, 5),
        verb=st.sampled_from(["pause", "resume", "hold", "resume", "retry", "pause", "hold", "cancel"]),
    )
    def ask(self, client: int, slot: int, verb: str) -> None:
        if job := self._job(slot, over=verb == "retry"):
            self._do(client, lambda asker: asker.ask(verb, job))

    @rule(client=clients, records=st.integers(3, 25), wait=st.booleans())
    def checkpoint(self, client: int, records: int, wait: bool) -> None:
        if not self.world.done and at_moment(self.world.home, records, MOMENT_S):
            answered = threading.Event()
            self._do(client, lambda asker: asker.checkpoint("", answered))  # of the job that runs
            if wait:
                answered.wait(CHECKPOINT_S)

    @rule(client=clients, slot=st.integers(0, 5))
    def delete(self, client: int, slot: int) -> None:
        if job := self._job(slot, over=True):
            self._do(client, lambda asker: asker.delete(job))

    @rule(client=clients, moment=moments, more=st.lists(st.integers(0, 5), max_size=1))
    def kill_the_daemon(self, client: int, moment: Moment, more: list[int]) -> None:
        self._go_on(client)
        if not self.world.done:
            at_moment(self.world.home, moment, MOMENT_S)
            self.world.keeper.kill()
        for events in more:  # while it starts
            if not self.world.done:
                self.world.watcher.wait_for_more(events, QUIET_S)
                self.world.keeper.kill()

    @rule(client=clients, moment=moments)
    def kill_the_training(self, client: int, moment: Moment) -> None:
        self._go_on(client)
        if not self.world.done:
            self.world.kill_the_training(moment)

    @rule(client=clients, moment=moments)
    def kill_both(self, client: int, moment: Moment) -> None:
        self._go_on(client)
        if not self.world.done:
            at_moment(self.world.home, moment, MOMENT_S)
            self.world.keeper.kill()
            self.world.kill_the_training(0)

    @rule(client=clients, variant=st.integers(0, len(VARIANTS) - 1))
    def let_one_end(self, client: int, variant: int) -> None:
        self._go_on(client, variant)
        if not self.world.done:
            before = self.world.ended()
            self.world.watcher.wait_until(lambda: self.world.ended() > before, END_S)


@contextmanager
def storm_world(data_cache: Path) -> Iterator[World]:
    daemon = RunningDaemon(make_home(data_cache))
    world = World(daemon, KILLS)
    try:
        yield world
    finally:
        world.keeper.let_go()
        daemon.end()


@dataclass(frozen=True)
class Result:
    """What a job ends with: the hash of its weights, and every metric of every step."""

    weights: str
    metrics: dict[tuple[int, str], float]


@pytest.fixture(scope="module")
def undisturbed(data_cache: Path) -> list[Result]:
    """What each variant ends with, when nobody touches it."""
    results = []
    with running_daemon(data_cache) as daemon:
        for variant in VARIANTS:
            job = submit(daemon.client, "", variant)
            assert daemon.client.wait(job, timeout_s=PATIENCE_S).state == job_pb2.JOB_STATE_SUCCEEDED
            metrics = pure_metrics(stored_events(daemon.home))[job.id]
            results.append(Result(next(daemon.client.list_checkpoints(job.id)).weights_sha256, metrics))
    return results


def test_a_storm_of_verbs_and_kills_loses_nothing_and_every_job_ends_with_the_same_bits(
    data_cache: Path, undisturbed: list[Result]
) -> None:
    print(f"\nstorm: N={KILLS} SEED={SEED}; the same again: make storm N={KILLS} SEED={SEED}")  # noqa: T201
    began = time.monotonic()
    with storm_world(data_cache) as world:
        Storm.world = world
        part = 0
        while not world.done:
            storm = type("Storm", (Storm,), {})
            run_state_machine_as_test(
                hypothesis.seed(SEED * 1_000_003 + part)(storm),
                settings=hypothesis.settings(
                    max_examples=4,
                    stateful_step_count=20,
                    phases=[hypothesis.Phase.generate],
                    database=None,
                    deadline=None,
                    suppress_health_check=list(hypothesis.HealthCheck),
                ),
            )
            part += 1
        world.drain()
        succeeded, identical = world.check(undisturbed)
        verbs = Counter(answer.verb for answer in world.answers)
        places = ", ".join(f"{count} {place}" for place, count in world.killed_at.most_common())
        print(  # noqa: T201
            f"storm: SEED={SEED}: {world.keeper.deaths + world.killed_at.total()} kills survived"
            f" ({world.keeper.deaths} of the daemon, {world.killed_at.total()} of the training: {places}),"
            f" {len(world.submitted)} jobs run, {identical} of {succeeded} that trained to the end bit-identical,"
            f" {verbs.total()} answers and {len(world.checkpoints)} checkpoints acknowledged,"
            f" {len(world.watcher.events)} events watched, {time.monotonic() - began:.0f} s"
        )
