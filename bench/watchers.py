"""What watching costs the training: windows of one run with four watchers, alternating with windows without.

    python bench/watchers.py [--pairs 12] [--window-s 20] [--data digits]

A real daemon on a home of its own, real training, and four times `m1ctl watch -o json` as processes of their own on the
same machine, started before a window and ended after it. A window counts from its first step to its last one, by the
times at which the training process wrote them; the steps of the first two seconds are left out. Each pair has both
kinds, in turns one or the other first. Prints one JSON line: the ratio of the images per second (with watchers to
without), what it is made of, and the cores that the daemon and the watchers took, each with its 95 % interval: a
machine with neighbours tells the latter more exactly than its speed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
from m1.trials import Estimate, median_interval, paired_ratio
from m1.v1 import event_pb2, job_pb2
from m1ctl import connect
from m1ctl.sdk.client import Client

WATCHERS = 4
SETTLE_S = 2.0


@dataclass(frozen=True)
class Window:
    """A while of training: from when to when, in seconds since the epoch, and the cores that others took meanwhile."""

    began: float
    ended: float
    daemon_cores: float
    watcher_cores: float


def processor_seconds(processes: Iterable[psutil.Process]) -> float:
    """What they have taken so far."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def window(home: Path, daemon: psutil.Process, job: str, seconds: float, watchers: int) -> Window:
    """Train on for a while with so many watchers."""
    command = [sys.executable, "-P", "-m", "m1ctl", "--home", str(home), "watch", job, "-o", "json"]
    running = [psutil.Popen(command, stdout=subprocess.DEVNULL) for _ in range(watchers)]
    try:
        time.sleep(SETTLE_S)
        began, daemon_before, before = time.time(), processor_seconds([daemon]), processor_seconds(running)
        time.sleep(seconds)
        ended, daemon_after, after = time.time(), processor_seconds([daemon]), processor_seconds(running)
        length = ended - began
        return Window(began, ended, (daemon_after - daemon_before) / length, (after - before) / length)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def step_times(client: Client, job: str) -> list[float]:
    """When each step was recorded, in seconds since the epoch."""
    newest = client.system_info().revision
    times = []
    for response in client.watch(job, from_revision=1, kinds=[event_pb2.EVENT_KIND_METRICS]):
        times += [event.time.ToNanoseconds() / 1e9 for event in response.events]
        if response.cursor >= newest:
            return times
    raise RuntimeError("the daemon ended the stream")


def rate(times: list[float], window: Window) -> float:
    """Steps a second between the first and the last step of a window."""
    inside = [at for at in times if window.began <= at <= window.ended]
    return (len(inside) - 1) / (inside[-1] - inside[0])


def shown(estimate: Estimate) -> list[float | None]:
    """The value, and its interval's ends."""
    return [number if number is None else round(number, 4) for number in (estimate.value, estimate.low, estimate.high)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--window-s", type=float, default=20.0)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--batch-size", type=int, default=128)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="m1-", dir="/tmp") as folder:
        home = Path(folder) / "home"
        daemon = subprocess.Popen([sys.executable, "-P", "-m", "m1d", "serve", "--quiet", "--home", str(home)])
        try:
            with connect(home) as client:
                assert client.connection.wait_until_ready(30)
                settings = {"epochs": 100_000, "batch_size": arguments.batch_size, "val_images": 0}
                settings |= {"checkpoint_every_epochs": 0, "checkpoint_every_s": 0}
                data = arguments.data if arguments.data == "digits" else str(Path(arguments.data).resolve())
                job = client.submit("cifar", data=data, settings=settings)
                client.wait(job, until={job_pb2.JOB_STATE_RUNNING})
                process, pairs = psutil.Process(daemon.pid), []
                for i in range(arguments.pairs):
                    order = (0, WATCHERS) if i % 2 else (WATCHERS, 0)
                    pairs.append({n: window(home, process, job.id, arguments.window_s, n) for n in order})
                times = step_times(client, job.id)
                client.wait(client.cancel(job.id))
        finally:
            daemon.terminate()
            daemon.wait()
    alone = [rate(times, pair[0]) * arguments.batch_size for pair in pairs]
    watched = [rate(times, pair[WATCHERS]) * arguments.batch_size for pair in pairs]
    sys.stdout.write(
        json.dumps(
            {
                "watched_to_alone": shown(paired_ratio(watched, alone)),
                "pairs": arguments.pairs,
                "watchers_cores": shown(median_interval([pair[WATCHERS].watcher_cores for pair in pairs])),
                "daemon_cores_watched": shown(median_interval([pair[WATCHERS].daemon_cores for pair in pairs])),
                "daemon_cores_alone": shown(median_interval([pair[0].daemon_cores for pair in pairs])),
                "images_per_s_alone": [round(value, 1) for value in alone],
                "images_per_s_watched": [round(value, 1) for value in watched],
            }
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
