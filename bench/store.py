"""The daemon over a store of years: start, list, and a long series, with 10,000 jobs and 10 million points.

    python bench/store.py [--runs 5]

Fills a home's database by SQL (the schema is the daemon's own), then times a real daemon: from its start to its first
answer, `m1ctl list` as a whole process, and GetMetricSeries of a million points at 1,000 buckets. Prints one JSON line
with medians in seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from m1.paths import Home
from m1.spec import JobSpec
from m1ctl import connect
from m1d.jobs.job import Job
from m1d.jobs.states import JobState
from m1d.store import Store

JOBS, SERIES_STEPS, LONG_STEPS = 10_000, 900, 1_000_000


def fill(path: Path) -> None:
    """10,000 finished jobs of 900 points, and one with a million."""
    store = Store(path)
    job = Job(
        number=0, name="", spec=JobSpec(recipe="cifar", data="digits", settings={"epochs": 15, "lr": 0.001, "seed": 7}),
        position=1, create_time=1.0, state=JobState.SUCCEEDED, reason="done",
        latest={f"train/metric-{k}": 0.5 for k in range(12)}, times={"SUCCEEDED": time.time()},
    )  # fmt: skip
    with store.transaction() as tx:
        for k in range(JOBS):
            tx.insert_job(replace(job, name=f"cifar-{k + 1}", position=k + 1))
    db = store._db
    db.execute("BEGIN")
    db.execute("INSERT INTO series (job, name) SELECT number, 'train/loss' FROM jobs")
    steps = "WITH RECURSIVE n(step) AS (SELECT 1 UNION ALL SELECT step + 1 FROM n WHERE step < ?)"
    db.execute(f"{steps} INSERT INTO points SELECT series.id, step, 1.0 / step FROM series, n", (SERIES_STEPS,))
    db.execute(
        f"{steps} INSERT OR REPLACE INTO points SELECT (SELECT max(id) FROM series), step, 1.0 / step FROM n",
        (LONG_STEPS,),
    )
    db.execute(
        "INSERT INTO summaries SELECT series, step / 64, min(step), max(step), count(*), count(value), min(value),"
        " max(value), sum(value), 1.0 / max(step) FROM points GROUP BY series, step / 64"
    )
    db.execute("COMMIT")
    (points,) = db.execute("SELECT count(*) FROM points").fetchone()
    print(f"{JOBS} jobs, {points} points, {path.stat().st_size / 1e6:.0f} MB", file=sys.stderr)
    store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    home = Home(Path(tempfile.mkdtemp(prefix="m1-", dir="/tmp")))
    fill(home.database)
    times: dict[str, list[float]] = {"start_s": [], "list_s": [], "list_all_s": [], "series_s": []}
    for _ in range(runs):
        began = time.perf_counter()
        daemon = subprocess.Popen([sys.executable, "-P", "-m", "m1d", "serve", "--quiet", "--home", str(home.root)])
        with connect(home.root, timeout_s=60) as client:
            assert client.connection.wait_until_ready(60)
            client.system_info()
            times["start_s"].append(time.perf_counter() - began)
            began = time.perf_counter()
            buckets = client.metric_series("train/loss", f"j{JOBS}", max_points=1000).buckets
            times["series_s"].append(time.perf_counter() - began)
            assert sum(bucket.count for bucket in buckets) == LONG_STEPS
        for key, more in (("list_s", []), ("list_all_s", ["--all"])):
            began = time.perf_counter()
            command = [sys.executable, "-P", "-m", "m1ctl", "--home", str(home.root), "list", *more]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            times[key].append(time.perf_counter() - began)
        daemon.terminate()
        daemon.wait()
    print(json.dumps({"runs": runs} | {key: round(statistics.median(values), 3) for key, values in times.items()}))


if __name__ == "__main__":
    main()
