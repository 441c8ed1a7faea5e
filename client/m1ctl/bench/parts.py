"""What `m1ctl bench` measures: the project itself, through the public API, as anybody could.

Each part gives findings of its own. What a part submits, it cancels and deletes, however it ends. The training that is
watched is `cifar` on the digits, batches of 32; figures of the engine's speed are those of the job `engine`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m1.errors import M1Error, Reason
from m1.paths import Home
from m1.trials import Estimate, median_interval
from m1.v1 import event_pb2, job_pb2

from m1ctl.sdk.background import START_TIMEOUT_S, DaemonExitedError, Departure, start_daemon
from m1ctl.sdk.client import Client, connect
from m1ctl.sdk.interrupts import uninterrupted
from m1ctl.sdk.states import ACTIVE, FINAL, SUCCEEDED, job_title, state_word
from m1ctl.views.formatting import seconds
from m1ctl.views.measurement import MeasuringView
from m1ctl.views.watched import Watched

if TYPE_CHECKING:
    from m1ctl.session import Session

_PATIENCE_S = 600.0
_BATCH = 32
_TRAINING: dict[str, bool | float | str] = {
    "epochs": 100_000,
    "batch_size": _BATCH,
    "checkpoint_every_epochs": 0,
    "checkpoint_every_s": 0,
}
_WHAT = f"cifar on the digits, batches of {_BATCH}"
_COMMANDS = (["--help"], ["list"])
_COMMAND_RUNS, _COLD_RUNS, _WARM_RUNS, _PAUSES, _CHECKPOINTS, _REPLAYS = 11, 3, 6, 6, 7, 11
_STEPS_AROUND = 8


def check_idle(client: Client) -> None:
    """Refuse to measure beside a job, and to disturb it.

    Raises:
        M1Error: WRONG_STATE.
    """
    busy = (job_pb2.JOB_STATE_QUEUED, *ACTIVE)
    for job in client.list_jobs(busy):
        raise M1Error(
            Reason.WRONG_STATE,
            f"job {job_title(job)} is {state_word(job.state)}: benchmarks need an idle machine",
            f"wait for it to end, or m1ctl pause {job.id}",
        )


def measure_engine(client: Client, _session: Session) -> list[job_pb2.Finding]:
    """Measure the training loop beside a plain script, with the profile that `cifar` gets here."""
    profile = client.submit("cifar", data="digits", validate_only=True).spec.profile
    with _submitted(client, "engine", profile=profile) as job:
        watched = Watched(job)
        with MeasuringView() as view:
            for response in client.watch(job.id, from_revision=job.revision + 1):
                view.show(watched, response, watched.take(response))
                if watched.is_over:
                    break
        ended = client.get(job.id)
        if ended.state != SUCCEEDED:
            message = ended.error.message or ended.reason
            raise M1Error(Reason.JOB_FAILED, f"job {job_title(ended)} {state_word(ended.state)}: {message}")
        return list(ended.findings)


def measure_command_line(_client: Client, session: Session) -> list[job_pb2.Finding]:
    """Measure whole processes, from start to end."""
    environment = os.environ | {"M1D_HOME": str(session.home.root)}
    found = []
    for arguments in _COMMANDS:
        times = []
        for _ in range(_COMMAND_RUNS + 1):  # the first one may read it all from the disk, and does not count
            began = time.perf_counter()
            _run(arguments, environment)
            times.append(time.perf_counter() - began)
        words = " ".join(arguments)
        key = f"start/{words.strip('-')}"
        found.append(_finding(key, f"m1ctl {words}", "ms", times[1:], 1000, "the whole process"))
    return found


def measure_cold(_client: Client, _session: Session) -> list[job_pb2.Finding]:
    """Measure a new home: its daemon's start, and the first step of its first job."""
    starts, steps = [], []
    for _ in range(_COLD_RUNS):
        with (
            _new_home() as home,
            connect(home.root, timeout_s=START_TIMEOUT_S) as client,
            _started(home, client) as until_answer,
            _at_first_step(client) as (_, until_step),
        ):
            starts.append(until_answer)
            steps.append(until_step)
    note = f"{_WHAT}: recipes described, data read, torch loaded, a step trained"
    return [
        _finding("daemon/start", "a daemon's start to its first answer", "s", starts, 1, "in a new home"),
        _finding("first_step/cold", "submit to first step, new home", "s", steps, 1, note),
    ]


def measure_daemon(client: Client, _session: Session) -> list[job_pb2.Finding]:
    """Submit, pause, resume, checkpoint and events, beside one training."""
    client.prepare_dataset("digits")
    first_steps = []
    for _ in range(_WARM_RUNS):
        with _at_first_step(client) as (_, took):
            first_steps.append(took)
    note = f"{_WHAT}: torch loaded, a step trained"
    found = [_finding("first_step/warm", "submit to first step, data in the cache", "s", first_steps, 1, note)]
    with _at_first_step(client) as (job, _):
        found += _pauses(client, job)
        found += _training(client, job)
        found += _replay(client, job)
    return found


PARTS: dict[str, Callable[[Client, Session], list[job_pb2.Finding]]] = {
    "engine": measure_engine,
    "daemon": measure_daemon,
    "cold": measure_cold,
    "start": measure_command_line,
}


@contextmanager
def _at_first_step(client: Client) -> Iterator[tuple[job_pb2.Job, float]]:
    """Hold a training of ours; yields it and the seconds from its submit until its first step was known here."""
    began = time.perf_counter()
    with _submitted(client, "cifar", data="digits", settings=_TRAINING) as job:
        with closing(_steps(client, job, job.revision + 1)) as steps:
            next(steps)
        yield job, time.perf_counter() - began


def _steps(client: Client, job: job_pb2.Job, from_revision: int) -> Generator[event_pb2.Event, None, None]:
    """Yield the metrics of each step, as they come.

    Raises:
        M1Error: JOB_FAILED, TIMED_OUT.
    """
    kinds = (event_pb2.EVENT_KIND_METRICS, event_pb2.EVENT_KIND_STATE)
    with closing(client.watch(job.id, from_revision=from_revision, kinds=kinds, timeout_s=_PATIENCE_S)) as stream:  # type: ignore[type-var]
        for response in stream:
            for event in response.events:
                if event.WhichOneof("payload") == "metrics_recorded":
                    yield event
                elif event.state_changed.to in FINAL:
                    ended = event.state_changed.job
                    message = ended.error.message or ended.reason
                    raise M1Error(Reason.JOB_FAILED, f"job {job_title(ended)} ended in the middle: {message}")


def _pauses(client: Client, job: job_pb2.Job) -> list[job_pb2.Finding]:
    gone, back = [], []
    for _ in range(_PAUSES):
        before = client.get(job.id)
        with Departure(before.pid) as departure:
            began = time.perf_counter()
            client.pause(job.id)
            if not departure.wait(_PATIENCE_S):
                raise M1Error(Reason.TIMED_OUT, f"job {job_title(job)} is not gone {_PATIENCE_S:g} s after a pause")
            gone.append(time.perf_counter() - began)
        paused = client.wait(job.id, until={job_pb2.JOB_STATE_PAUSED}, timeout_s=_PATIENCE_S)
        began = time.perf_counter()
        client.resume(job.id)
        with closing(_steps(client, job, paused.revision + 1)) as steps:
            next(steps)
        back.append(time.perf_counter() - began)
    note = "its step ended, a checkpoint durable, the process gone"
    return [
        _finding("pause/freed", "pause to memory freed", "s", gone, 1, note),
        _finding("pause/first_step", "resume to first step", "s", back, 1, "torch loaded, the checkpoint read"),
    ]


def _training(client: Client, job: job_pb2.Job) -> list[job_pb2.Finding]:
    """Measure how late events are, and how much longer a step takes that comes with a checkpoint."""
    late, written, ended = [], [], {}
    stalls, durable = [], []
    with closing(_steps(client, job, client.get(job.id).revision + 1)) as steps:
        reading_since = time.time()
        for _ in range(_CHECKPOINTS):
            for event in itertools.islice(steps, _STEPS_AROUND + 1):
                ended[event.metrics_recorded.step] = at = seconds(event.time)
                # What came while the checkpoint was made has waited here: its delay is not the daemon's.
                if at > reading_since:
                    late.append(time.time() - at)
            began = time.perf_counter()
            step = client.create_checkpoint(job.id).step
            durable.append(time.perf_counter() - began)
            reading_since = time.time()
            written.append(step)
            while step + 1 not in ended:
                event = next(steps)
                ended[event.metrics_recorded.step] = seconds(event.time)
    for step in written:
        earlier = range(step - _STEPS_AROUND + 1, step + 1)
        lasted = [ended[k] - ended[k - 1] for k in earlier if k in ended and k - 1 in ended]
        if lasted and step in ended:
            stalls.append(ended[step + 1] - ended[step] - median_interval(lasted).value)
    note = f"the step with a checkpoint, less the median of the {_STEPS_AROUND} before"
    delay_note = "from its writing by the training to its reading here"
    return [
        _finding("checkpoint/stall", "what a checkpoint stalls the training", "ms", stalls, 1000, note),
        _finding("checkpoint/durable", "checkpoint asked for to durable", "ms", durable, 1000, _WHAT),
        _finding("events/delay", "how late an event is", "ms", late, 1000, delay_note),
    ]


def _replay(client: Client, job: job_pb2.Job) -> list[job_pb2.Finding]:
    rates = []
    last = client.get(job.id).revision
    for _ in range(_REPLAYS):
        count, began = 0, time.perf_counter()
        with closing(client.watch(job.id, from_revision=1, timeout_s=_PATIENCE_S)) as stream:  # type: ignore[type-var]
            for response in stream:
                count += len(response.events)
                if response.cursor >= last:
                    break
        rates.append(count / (time.perf_counter() - began))
    note = f"to one watcher, about {count} a time, while it trains"
    return [_finding("events/replayed", "stored events that are read again", "events/s", rates, 1, note)]


@contextmanager
def _submitted(client: Client, recipe: str, **asked: Any) -> Iterator[job_pb2.Job]:
    """Hold a job of ours, cancelled and deleted at the end; at no moment does Ctrl-C leave it behind."""
    with ExitStack() as ours:
        with uninterrupted("submitting the benchmark's job, to end it"):
            job = client.submit(recipe, **asked)
            ours.callback(_end, client, job)
        yield job


def _end(client: Client, job: job_pb2.Job) -> None:
    with uninterrupted(f"ending the benchmark's job {job_title(job)}"):
        if client.get(job.id).state not in FINAL:
            client.cancel(job.id)
            client.wait(job.id, timeout_s=_PATIENCE_S)
        client.delete(job.id)


@contextmanager
def _started(home: Home, client: Client) -> Iterator[float]:
    """Hold a daemon of ours in a home, stopped at the end; yields the seconds until it answered."""
    with ExitStack() as ours:
        with uninterrupted("starting the benchmark's daemon, to stop it"):
            began = time.perf_counter()
            try:
                info = start_daemon(home, client, START_TIMEOUT_S)
            except DaemonExitedError as error:
                raise M1Error(Reason.UNREACHABLE, f"the daemon of a new home did not start: {error}") from error
            took = time.perf_counter() - began
            ours.callback(_stop, client, info.pid)
        yield took


def _stop(client: Client, pid: int) -> None:
    with uninterrupted("stopping the benchmark's daemon"), Departure(pid) as departure:
        client.shutdown()
        departure.wait(_PATIENCE_S)


@contextmanager
def _new_home() -> Iterator[Home]:
    root = Path(tempfile.mkdtemp(prefix="m1-"))
    try:
        yield Home(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _run(arguments: list[str], environment: dict[str, str]) -> None:
    # posix_spawn: gRPC's threads would not survive a fork.
    quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]
    command = [sys.executable, "-P", "-m", "m1ctl", *arguments]
    pid = os.posix_spawn(sys.executable, command, environment, file_actions=quiet)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise M1Error(Reason.INTERNAL, f"m1ctl {' '.join(arguments)} ended with exit code {code}")


def _finding(key: str, title: str, unit: str, values: list[float], scale: float, note: str) -> job_pb2.Finding:
    if not values:
        return job_pb2.Finding(key=key, title=title, note="not measured: nothing came in time")
    found: Estimate = median_interval([scale * value for value in values])
    return job_pb2.Finding(
        key=key, title=title, value=found.value, unit=unit, low=found.low, high=found.high, n=found.n, note=note
    )
