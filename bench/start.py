"""What a job spends in "starting", and on what.

    python bench/start.py parts [--runs 10] [--recipe cifar] [--data digits] [--threads 2]
    python bench/start.py jobs [--runs 10] [--recipe cifar] [--data digits]

`parts` times the pieces of one attempt up to its second step, in a process that runs a job's directory as the daemon
would start it. Two kinds of runs by turns: as it is, and with what m1train.attempt.imports spares left in. With
`--cold` the system's page cache is dropped before every run, which takes root. Wall and processor time in milliseconds,
medians; a machine with neighbours tells the second more exactly.

`jobs` submits jobs to a real daemon on a home of its own, one after another: from STARTING to RUNNING, as the daemon
notes both, and from the submit to RUNNING. It uses nothing but the public API, so another version's is measured by its
own folders on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DROP_CACHES = Path("/proc/sys/vm/drop_caches")
LEAN, FULL = "as it is", "nothing spared"
STEPS = 2
Marks = list[tuple[str, float, float]]
"""What was done, and the wall and processor time at its end."""
Found = dict[str, tuple[float, float]]
"""Wall and processor time in milliseconds, by part."""


class EnoughError(Exception):
    """The steps that are timed have been made."""


def attempt(directory: str, spawned: float, lean: bool) -> None:
    """Run an attempt with its parts timed, and print them as JSON; `spawned` is when this process was asked for."""
    marks: Marks = [("python's start", time.monotonic(), time.process_time())]

    def mark(what: str) -> None:
        marks.append((what, time.monotonic(), time.process_time()))

    def timed(owner: Any, name: str, what: str) -> None:
        inner: Callable[..., Any] = getattr(owner, name)

        def outer(*arguments: Any, **named: Any) -> Any:
            mark("what is between")
            result = inner(*arguments, **named)
            mark(what)
            return result

        setattr(owner, name, outer)

    import m1train.__main__
    import m1train.attempt.imports
    import m1train.attempt.run

    mark("our command line")
    if not lean:
        m1train.attempt.imports.uncollected = m1train.attempt.run.uncollected = contextlib.nullcontext  # type: ignore[assignment, attr-defined]
        m1train.attempt.run.keep_the_compiler_out = lambda: None  # type: ignore[attr-defined]
    with m1train.attempt.imports.uncollected():
        import torch  # noqa: F401

        mark("import torch")
        import m1train.attempt.data
        import m1train.checkpoints.writer
        import m1train.engine.loop
        import m1train.engine.memory
    mark("import the engine")
    from m1train.engine.loop import Loop
    from m1train.engine.training import Training

    timed(m1train.attempt.run, "_newest", "look for a checkpoint")
    timed(m1train.catalogue, "load", "import the recipe")
    timed(m1train.attempt.data, "open_data", "open the data")
    timed(m1train.attempt.data, "split_up", "split them")
    assemble: Any = Training.assemble

    def assembled(_: type[Training], *arguments: Any) -> Training:
        mark("what is between")
        result: Training = assemble(*arguments)
        mark("model and optimizer")
        return result

    Training.assemble = classmethod(assembled)  # type: ignore[assignment, method-assign]
    timed(m1train.engine.memory, "check_batch", "estimate the memory")
    inner_step, made = Loop._step, 0

    def step(loop: Loop) -> None:
        nonlocal made
        mark("say that it runs" if not made else "what is between")
        inner_step(loop)
        made += 1
        mark(f"step {made}")
        if made == STEPS:
            raise EnoughError

    Loop._step = step  # type: ignore[method-assign]
    m1train.__main__.main(["run", directory])
    sys.stdout.write(json.dumps({"spawned": spawned, "marks": marks}) + "\n")


def parts(arguments: argparse.Namespace, folder: Path) -> None:
    """Measure the parts, and print them."""
    data_root = folder / "data"
    prepare = ["prepare", "--data-root", str(data_root), "--source", arguments.data]
    subprocess.run([sys.executable, "-P", "-m", "m1train", *prepare], check=True, stdout=subprocess.DEVNULL)
    runs: dict[str, list[Found]] = {LEAN: [], FULL: []}
    for turn in range(arguments.runs + (not arguments.cold)):
        for kind in (LEAN, FULL) if turn % 2 else (FULL, LEAN):
            found = one_run(arguments, folder / f"{turn}-{kind}", data_root, kind)
            if turn or arguments.cold:  # the first one may read it all from the disk
                runs[kind].append(found)
    what = "cold" if arguments.cold else "warm"
    sys.stdout.write(f"{what}, n = {arguments.runs}; wall/processor time in ms, medians; {LEAN} | {FULL}\n")
    for name in [*runs[LEAN][0]]:
        columns = []
        for kind in (LEAN, FULL):
            walls, cpus = zip(*(run.get(name, (0.0, 0.0)) for run in runs[kind]), strict=True)
            columns.append(f"{statistics.median(walls):8.0f} {statistics.median(cpus):8.0f}")
        sys.stdout.write(f"{name:24}{columns[0]}  |{columns[1]}\n")


def one_run(
    arguments: argparse.Namespace, directory: Path, data_root: Path, kind: str
) -> dict[str, tuple[float, float]]:
    """Run one attempt in a new directory."""
    from m1.jobdir import Profile, Spec, write_spec
    from m1train.catalogue import declaration
    from m1train.task.settings import declared

    known = declaration(arguments.recipe)
    settings = {setting.name: setting.default for setting in declared(known.config)}
    profile = Profile(threads=arguments.threads)
    directory.mkdir()
    spec = Spec(
        job_id="j1",
        recipe=arguments.recipe,
        data=arguments.data,
        data_root=str(data_root),
        settings=settings,
        profile=profile,
        metrics=known.metrics,
        sample_unit=known.sample_unit,
    )
    write_spec(directory, spec)
    if arguments.cold:
        os.sync()
        DROP_CACHES.write_text("3")
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads), "MKL_NUM_THREADS": str(arguments.threads)}
    command = [sys.executable, "-P", __file__, "attempt", "--directory", str(directory), "--kind", kind]
    done = subprocess.run(
        [*command, "--spawned", repr(time.monotonic())],
        check=True,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    found: Found = {}
    before = (answer["spawned"], 0.0)
    for name, *at in answer["marks"]:
        wall, cpu = found.get(name, (0.0, 0.0))
        found[name] = (wall + 1e3 * (at[0] - before[0]), cpu + 1e3 * (at[1] - before[1]))
        before = (at[0], at[1])
    first = next(i for i, (name, *_) in enumerate(answer["marks"]) if name == "say that it runs")
    _, wall, cpu = answer["marks"][first]
    found["until it runs, all"] = (1e3 * (wall - answer["spawned"]), 1e3 * cpu)
    return found


def jobs(arguments: argparse.Namespace, folder: Path) -> None:
    """Measure jobs of a daemon, and print it."""
    from m1.v1 import job_pb2
    from m1ctl import connect

    home, starting, submitted = folder / "home", [], []
    daemon = subprocess.Popen([sys.executable, "-P", "-m", "m1d", "serve", "--quiet", "--home", str(home)])
    try:
        with connect(home) as client:
            assert client.connection.wait_until_ready(30)
            client.prepare_dataset(arguments.data)
            for turn in range(arguments.runs + 1):
                began = time.time()
                job = client.submit(arguments.recipe, data=arguments.data)
                job = client.wait(job, until={job_pb2.JOB_STATE_RUNNING})
                if turn:  # the first one may read it all from the disk
                    ran = job.run_time.ToNanoseconds() / 1e9
                    starting.append(ran - job.start_time.ToNanoseconds() / 1e9)
                    submitted.append(ran - began)
                client.wait(client.cancel(job.id))
    finally:
        daemon.terminate()
        daemon.wait()
    for what, times in (("STARTING to RUNNING", starting), ("submit to RUNNING", submitted)):
        words = f"{statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f}), n = {len(times)}"
        sys.stdout.write(f"{what:24}{words}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("parts", "jobs", "attempt"))
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--recipe", default="cifar")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cold", action="store_true")
    for inner in ("--directory", "--spawned", "--kind"):
        parser.add_argument(inner, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.what == "attempt":
        attempt(arguments.directory, float(arguments.spawned), arguments.kind == LEAN)
        return
    with tempfile.TemporaryDirectory(prefix="m1-", dir="/tmp") as folder:
        (parts if arguments.what == "parts" else jobs)(arguments, Path(folder))


if __name__ == "__main__":
    main()
