"""What the command line costs, beside a Python that does nothing.

    python bench/command_line.py [--runs 15]

Whole processes by turns, on a daemon of a home of its own with one held job: `python -c pass`, the imports of gRPC and
typer alone, some verbs, and a program that asks one thing by the SDK. Wall and processor time, medians, and how many
times `python -c pass` that is. Modules are compiled beforehand, as an installation has them. Another version's is
measured by its own folders on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from m1.v1 import job_pb2
from m1ctl import connect

NOTHING = ("-c", "pass")
SDK = "from m1ctl import connect\nwith connect() as m1:\n    m1.get('holder')"
CASES = {
    "python -c pass": NOTHING,
    "import grpc, typer": ("-c", "import grpc, typer"),
    "m1ctl list": ("-m", "m1ctl", "list"),
    "m1ctl show": ("-m", "m1ctl", "show", "holder"),
    "m1ctl --version": ("-m", "m1ctl", "--version"),
    # The name is taken: the job is checked and refused, so that the queue stays as it is.
    "m1ctl submit": ("-m", "m1ctl", "submit", "cifar", "--data", "digits", "--name", "holder"),
    "the SDK, one call": ("-c", SDK),
}


def run(arguments: tuple[str, ...], environment: dict[str, str]) -> tuple[float, float]:
    """Run a process; its wall and processor time in milliseconds."""
    quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]
    began = time.perf_counter()
    pid = os.posix_spawn(sys.executable, [sys.executable, *arguments], environment, file_actions=quiet)
    _, _, used = os.wait4(pid, 0)
    return 1e3 * (time.perf_counter() - began), 1e3 * (used.ru_utime + used.ru_stime)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="m1-", dir="/tmp") as folder:
        home = Path(folder) / "home"
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment["M1D_HOME"] = str(home)
        daemon = subprocess.Popen([sys.executable, "-P", "-m", "m1d", "serve", "--quiet", "--home", str(home)])
        try:
            with connect(home) as client:
                assert client.connection.wait_until_ready(30)
                job = client.submit("cifar", data="digits", name="holder")
                client.wait(job, until={job_pb2.JOB_STATE_RUNNING})
                client.wait(client.pause(job.id), until={job_pb2.JOB_STATE_PAUSED})
                took: dict[str, list[tuple[float, float]]] = {name: [] for name in CASES}
                for turn in range(arguments.runs + 1):
                    for name, case in CASES.items():
                        times = run(case, environment)
                        if turn:  # the first one may compile modules and read them from the disk
                            took[name].append(times)
                client.cancel(job.id)
        finally:
            daemon.terminate()
            daemon.wait()
    nothing = [statistics.median(times) for times in zip(*took["python -c pass"], strict=True)]
    sys.stdout.write(f"{'':20}{'wall':>10}{'':9}{'processor':>10}        n = {arguments.runs}\n")
    for name, times in took.items():
        wall, processor = (statistics.median(values) for values in zip(*times, strict=True))
        columns = f"{wall:7.1f} ms{wall / nothing[0]:7.1f} x{processor:7.1f} ms{processor / nothing[1]:7.1f} x"
        sys.stdout.write(f"{name:20}{columns}\n")


if __name__ == "__main__":
    main()
