"""Events a second through the daemon to 1, 4 and 16 watchers, how late they are, and what a stuck reader costs.

    python bench/events.py [--events 20000] [--rate 200]

A real daemon on a home of its own. This program takes the place of a training process: it holds the lock of a job
that was held at its first step, and writes records to its journal with the project's own writer. Throughput: all
records are written while the daemon is down; counted from its first message to each watcher's last event. Delay:
records come at a steady rate; from the moment a record is written to the moment a watcher has it. Memory: of the
daemon after the burst, with 16 watchers of which one never reads. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from m1.jobdir import lock_path
from m1.journal import Exited, JournalWriter, Metrics, journal_path
from m1.paths import Home
from m1.v1 import event_pb2, job_pb2
from m1ctl import connect

KINDS = [event_pb2.EVENT_KIND_METRICS]


class Stage:
    """A daemon, and a job whose training process is this program."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.start()
        with connect(home) as client:
            settings = {"epochs": 100, "batch_size": 16}
            job = client.submit("cifar", data="digits", settings=settings)
            client.wait(job, until={job_pb2.JOB_STATE_RUNNING})
            held = client.wait(client.pause(job.id, hold=True), until={job_pb2.JOB_STATE_HELD})
            self.job, pid = held.id, held.pid
        self.stop()
        os.kill(pid, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)
        directory = Home(home).job(self.job)
        self._lock = os.open(lock_path(directory), os.O_RDWR)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        path = journal_path(directory, held.attempt)
        written = path.read_bytes()
        path.unlink()
        self.journal = JournalWriter(path)
        with open(path, "ab") as file:  # what the training process had said; the writer goes on behind it
            file.write(written)
        self.step = held.progress.step
        self.start()

    def start(self) -> None:
        self.daemon = subprocess.Popen(
            [sys.executable, "-P", "-m", "m1d", "serve", "--quiet", "--home", str(self.home)]
        )
        with connect(self.home) as client:
            assert client.connection.wait_until_ready(30)

    def stop(self) -> None:
        self.daemon.terminate()
        self.daemon.wait()

    def write(self, count: int) -> None:
        for _ in range(count):
            self.step += 1
            self.journal.append(Metrics(self.step, 0, {"train/loss": 1.0, "train/accuracy": 0.5}))

    def end(self) -> None:
        self.journal.append(Exited("stopped"))
        os.close(self._lock)
        self.stop()


def throughput(stage: Stage, watchers: int, events: int) -> float:
    """Events a second, all watchers together, until the last of them has the last one."""
    with connect(stage.home) as client:
        before = client.system_info()
    stage.stop()
    stage.write(events)
    first: list[float] = []
    last: list[float] = []

    def watch() -> None:
        with connect(stage.home) as client:
            client.connection.wait_until_ready(30)
            seen = 0
            for response in client.watch(stage.job, from_revision=before.revision + 1, kinds=KINDS):
                assert not response.HasField("lost")
                if response.events and not seen:
                    first.append(time.perf_counter())
                seen += len(response.events)
                if seen >= events:
                    last.append(time.perf_counter())
                    return

    threads = [threading.Thread(target=watch) for _ in range(watchers)]
    stage.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return watchers * events / (max(last) - min(first))


def delay(stage: Stage, watchers: int, events: int, rate: float) -> dict[str, float]:
    """Milliseconds from the writing of a record to a watcher's having it: median, 99th percentile, largest."""
    late: list[float] = []
    ready = threading.Barrier(watchers + 1)

    def watch() -> None:
        with connect(stage.home) as client:
            stream = client.watch(stage.job, from_revision=client.system_info().revision + 1, kinds=KINDS)
            next(stream)
            ready.wait()
            seen = 0
            for response in stream:
                now = time.time()
                late.extend(1e3 * (now - event.time.ToNanoseconds() / 1e9) for event in response.events)
                seen += len(response.events)
                if seen >= events:
                    return

    threads = [threading.Thread(target=watch) for _ in range(watchers)]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.perf_counter()
    for k in range(events):
        # The load's own pace, not a wait for anything.
        time.sleep(max(0.0, began + k / rate - time.perf_counter()))
        stage.write(1)
    for thread in threads:
        thread.join()
    cuts = statistics.quantiles(late, n=100)
    return {"p50_ms": round(cuts[49], 1), "p99_ms": round(cuts[98], 1), "max_ms": round(max(late), 1)}


def memory(stage: Stage, watchers: int, events: int) -> dict[str, float]:
    """The daemon's resident memory in MB before and after a burst, with one watcher that never reads."""
    from m1.v1.event_pb2_grpc import EventServiceStub

    process = psutil.Process(stage.daemon.pid)
    with connect(stage.home) as stuck_client:
        revision = stuck_client.system_info().revision
        stub = EventServiceStub(stuck_client.connection.channel)
        stuck = stub.Watch(event_pb2.WatchRequest(from_revision=1))  # opened, and never read
        before = process.memory_info().rss
        done = []

        def watch() -> None:
            with connect(stage.home) as client:
                seen = 0
                for response in client.watch(stage.job, from_revision=revision + 1, kinds=KINDS):
                    seen += len(response.events)
                    if seen >= events:
                        done.append(seen)
                        return

        threads = [threading.Thread(target=watch) for _ in range(watchers - 1)]
        for thread in threads:
            thread.start()
        stage.write(events)
        for thread in threads:
            thread.join()
        after = process.memory_info().rss
        stuck.cancel()
    return {"before_mb": round(before / 1e6, 1), "after_mb": round(after / 1e6, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=200, help="records a second, for the delay")
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="m1-", dir="/tmp"))
    stage = Stage(home)
    result = {
        "events": arguments.events,
        "events_per_s": {n: round(throughput(stage, n, arguments.events)) for n in (1, 4, 16)},
        "delay": {n: delay(stage, n, 1000, arguments.rate) for n in (1, 4, 16)},
        "memory_16_watchers_one_stuck": memory(stage, 16, arguments.events),
    }
    stage.end()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
