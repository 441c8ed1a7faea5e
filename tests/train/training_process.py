"""A real training process on a real job directory, and how a test waits for what it does."""

import contextlib
import hashlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from m1.failpoints import VARIABLE
from m1.jobdir import (
    Desired,
    Profile,
    RecipeFile,
    Spec,
    Want,
    checkpoint_path,
    recipe_path,
    write_desired,
    write_spec,
)
from m1.journal import CheckpointWritten, Exited, Metrics, Record, journal_path, read_journal
from m1.settings import Value

DEADLINE_S = 180
# Values that depend on the clock, not on what is trained.
_CLOCKED = ("train/samples_per_s", "train/seconds/")


@dataclass
class Job:
    directory: Path
    attempt: int = 0

    @classmethod
    def new(
        cls, directory: Path, data: str, data_root: Path, *, recipe: str = "cifar", threads: int = 1, **settings: Value
    ) -> "Job":
        directory.mkdir()
        values = {"batch_size": 16, "epochs": 2} | settings
        spec = Spec(
            job_id=directory.name,
            recipe=recipe,
            data=data,
            data_root=str(data_root),
            settings=values,
            profile=Profile(threads=threads),
        )
        write_spec(directory, spec)
        return cls(directory)

    @classmethod
    def of_file(cls, directory: Path, recipe: str, data: Path, data_root: Path, **settings: Value) -> "Job":
        """A job whose recipe is a file of the user's own; its one class is the recipe."""
        directory.mkdir()
        recipe_path(directory).write_text(recipe)
        sha256 = hashlib.sha256(recipe.encode()).hexdigest()
        name = re.findall(r"^class (\w+)\((?:Task|Classifier)", recipe, re.MULTILINE)[0]
        file = RecipeFile("mine.py", name, sha256)
        spec = Spec(
            job_id=directory.name,
            recipe=name,
            data=str(data),
            data_root=str(data_root),
            settings=settings,
            profile=Profile(),
            recipe_file=file,
        )
        write_spec(directory, spec)
        return cls(directory)

    def want(self, want: Want, checkpoint: int = 0) -> None:
        write_desired(self.directory, Desired(want, checkpoint))

    @contextlib.contextmanager
    def started(self, failpoint: str = "") -> Iterator["Attempt"]:
        """A training process, with a failpoint armed or none."""
        self.attempt += 1
        command = [sys.executable, "-m", "m1train", "run", str(self.directory), "--attempt", str(self.attempt)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({VARIABLE: failpoint} if failpoint else {})
        with open(self.directory / "log", "ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            yield Attempt(process, journal_path(self.directory, self.attempt), self.directory)
        finally:
            process.kill()
            process.wait()

    def run(self, failpoint: str = "") -> list[Record]:
        """One attempt, to its end."""
        with self.started(failpoint) as attempt:
            return attempt.finish()

    def journals(self) -> list[Record]:
        """All attempts' records."""
        paths = [journal_path(self.directory, i + 1) for i in range(self.attempt)]
        return [entry.record for path in paths for entry in read_journal(path, 0, 2**28)]


@dataclass
class Attempt:
    process: "subprocess.Popen[bytes]"
    journal: Path
    directory: Path

    def records(self) -> list[Record]:
        return [entry.record for entry in read_journal(self.journal, 0, 2**28)]

    def wait_for(self, condition: Callable[[Record], bool], count: int = 1) -> Record:
        """The count-th record for which the condition holds; fails at the deadline or when the process has gone."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            gone = self.process.poll() is not None  # asked first: what it wrote before it went is still read
            found = [record for record in self.records() if condition(record)]
            if len(found) >= count:
                return found[count - 1]
            if gone:
                break
            select.select([], [], [], 0.005)
        raise AssertionError(f"not found in {self.records()}\n{(self.directory / 'log').read_text()}")

    def wait_for_log(self, text: str) -> None:
        """Until the job's log has a text: for what the journal cannot say."""
        deadline = time.monotonic() + DEADLINE_S
        while text not in (log := (self.directory / "log").read_text()):
            assert time.monotonic() < deadline, log
            assert self.process.poll() is None, log
            select.select([], [], [], 0.005)

    def finish(self) -> list[Record]:
        self.process.wait(DEADLINE_S)
        return self.records()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def trained(step: int) -> Callable[[Record], bool]:
    """Whether a record says that a step has been trained."""
    return lambda record: isinstance(record, Metrics) and record.step >= step and "train/loss" in record.values


def is_a(*kinds: type) -> Callable[[Record], bool]:
    return lambda record: isinstance(record, kinds)


def exited(records: list[Record]) -> Exited:
    assert isinstance(records[-1], Exited), records[-1]
    return records[-1]


def ended(records: list[Record], outcome: str) -> bool:
    return exited(records).outcome == outcome


def pure_metrics(records: list[Record]) -> dict[tuple[int, str], str]:
    """Every metric that is a pure function of the training, to its last bit; recorded twice, it must be the same."""
    found: dict[tuple[int, str], str] = {}
    for record in records:
        if not isinstance(record, Metrics):
            continue
        for key, value in record.values.items():
            if not key.startswith(_CLOCKED):
                assert found.setdefault((record.step, key), repr(value)) == repr(value), (record.step, key)
    return found


def weights(records: list[Record]) -> dict[int, str]:
    """The SHA-256 of each checkpoint's weights, by step."""
    return {record.step: record.weights_sha256 for record in records if isinstance(record, CheckpointWritten)}


def hashes(job: Job, step: int) -> dict[str, str]:
    """The SHA-256 of the weights and of the optimizer's tensors in the checkpoint of a step, as its manifest says."""
    files = json.loads((checkpoint_path(job.directory, step) / "manifest.json").read_text())["files"]
    return {name: files[name]["sha256"] for name in ("weights.safetensors", "optimizer.safetensors")}


def assert_same(job: Job, undisturbed: Job, steps: int) -> None:
    """Both have trained to the end, and to the same bits."""
    expected, found = undisturbed.journals(), job.journals()
    assert exited(found) == Exited("succeeded", step=steps)
    assert hashes(job, steps) == hashes(undisturbed, steps)
    assert weights(found)[steps] == hashes(job, steps)["weights.safetensors"]
    assert pure_metrics(found) == pure_metrics(expected)
