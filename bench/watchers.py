"""What watching costs the training: windows of one run with four watchers, alternating with windows without.

    python bench/watchers.py [--pairs 12] [--window-s 20] [--data digits]

A real daemon on a home of its own, real training, and four times `m1ctl watch -o json` as processes of their own on the
same machine, started before a window and ended after it. A window counts from its first step to its last one, by the
times at which the training process wrote them; the steps of the first two seconds are left out. Each pair has both
kinds, in turns one or the other first. Prints one JSON line: the ratio of the images per second (with watchers to
without) with its 95 % interval, and what it is made of.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from m1.trials import paired_ratio
from m1.v1 import event_pb2, job_pb2
from m1ctl import connect
from m1ctl.client import Client

WATCHERS = 4
SETTLE_S = 2.0


def window(home: Path, job: str, seconds: float, watchers: int) -> tuple[float, float]:
    """Train on for a while with so many watchers; the first and the last moment that count, since the epoch."""
    command = [sys.executable, "-P", "-m", "m1ctl", "--home", str(home), "watch", job, "-o", "json"]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(watchers)]
    try:
        time.sleep(SETTLE_S)
        began = time.time()
        time.sleep(seconds)
        return began, time.time()
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


def rate(times: list[float], began: float, ended: float) -> float:
    """Steps a second between the first and the last step of a window."""
    inside = [at for at in times if began <= at <= ended]
    return (len(inside) - 1) / (inside[-1] - inside[0])


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
                pairs = []
                for i in range(arguments.pairs):
                    order = (0, WATCHERS) if i % 2 else (WATCHERS, 0)
                    pairs.append({n: window(home, job.id, arguments.window_s, n) for n in order})
                times = step_times(client, job.id)
                client.wait(client.cancel(job.id))
        finally:
            daemon.terminate()
            daemon.wait()
    alone = [rate(times, *pair[0]) * arguments.batch_size for pair in pairs]
    watched = [rate(times, *pair[WATCHERS]) * arguments.batch_size for pair in pairs]
    ratio = paired_ratio(watched, alone)
    sys.stdout.write(
        json.dumps(
            {
                "watched_to_alone": round(ratio.value, 4),
                "interval_95": [round(ratio.low, 4), round(ratio.high, 4)],
                "pairs": ratio.n,
                "images_per_s_alone": [round(value, 1) for value in alone],
                "images_per_s_watched": [round(value, 1) for value in watched],
            }
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
