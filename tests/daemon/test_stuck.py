"""A path that never answers keeps neither the daemon nor its end waiting."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from harness import PATIENCE_S, RunningDaemon, environment
from m1.errors import M1Error, Reason
from m1.jobdir import read_spec, spec_path
from m1.journal import journal_path, read_journal
from m1d.processes import blocking
from m1d.processes.blocking import copy_from, look_at

# A daemon whose loop opens a FIFO that nobody writes to, as soon as it serves.
STUCK = """
import asyncio, os, sys
from pathlib import Path
import m1d.__main__, m1d.daemon
from m1d.running.supervisor import Supervisor

m1d.daemon._LAST_MOMENT_S = 1.0
Supervisor._turn = lambda self: open(sys.argv[1], "rb")
asyncio.run(m1d.__main__._serve(sys.argv[2], foreground=False))
"""
# One with a thread that waits for such a FIFO, and ends in good order.
ONE_KEPT = """
import asyncio, sys
from m1d.processes import blocking

async def main():
    blocking.LIMIT_S = 0.05
    try:
        await blocking.look_at(sys.argv[1], open, sys.argv[1], "rb")
    except Exception as error:
        print(error)

asyncio.run(main())
"""


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


def test_sigterm_ends_a_daemon_whose_event_loop_is_stuck(fifo: Path) -> None:
    home = Path(tempfile.mkdtemp(prefix="m1-", dir="/tmp"))
    running = RunningDaemon(home)
    running.process = subprocess.Popen([sys.executable, "-c", STUCK, str(fifo), str(home)], env=environment(home))
    try:
        deadline = time.monotonic() + PATIENCE_S
        while "serving" not in ((home / "m1d.log").read_text() if (home / "m1d.log").exists() else ""):
            assert time.monotonic() < deadline
            assert running.process.poll() is None
            threading.Event().wait(0.01)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(PATIENCE_S) == 1
        assert "in <lambda>" in running.log(), "the log says where it was stuck"
    finally:
        running.end()


def test_a_process_ends_though_a_path_that_it_looked_at_never_answers(fifo: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ONE_KEPT, str(fifo)], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "did not answer within 0.05 s: see whether its disk or its network mount is there" in done.stdout


def test_a_path_that_does_not_answer_is_said_and_the_loop_goes_on_turning(
    fifo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocking, "LIMIT_S", 0.2)
    monkeypatch.setattr(blocking, "MOST_KEPT", 2)

    async def look() -> None:
        turns = 0
        for _ in range(2):
            looking = asyncio.create_task(look_at("/mnt/dead", open, fifo, "rb"))
            while not looking.done():
                await asyncio.sleep(0)
                turns += 1
            with pytest.raises(M1Error, match=r"\"/mnt/dead\" did not answer") as caught:
                await looking
            assert caught.value.reason is Reason.TIMED_OUT
        assert turns > 100
        with pytest.raises(M1Error, match="2 other paths have not answered yet"):
            await look_at("/mnt/other", os.path.exists, "/")
        with open(fifo, "wb"):  # noqa: ASYNC230 - the disk is back
            while blocking._kept:
                await asyncio.sleep(0.005)
        assert await look_at("/", os.path.exists, "/")

    asyncio.run(look())


def test_what_a_look_raises_and_gives_arrives() -> None:
    async def look() -> None:
        with pytest.raises(FileNotFoundError):
            await look_at("/nowhere", os.stat, "/nowhere")
        with pytest.raises(TimeoutError, match="its own"):
            await copy_from("/", _raise, TimeoutError("its own"))
        assert await copy_from("/", lambda: 7) == 7

    asyncio.run(look())


def _raise(error: Exception) -> None:
    raise error


def test_files_of_a_job_that_are_none_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(spec_path(tmp_path))
    os.mkfifo(journal_path(tmp_path, 1))
    with pytest.raises(OSError, match="not a regular file"):
        read_spec(tmp_path)
    with pytest.raises(OSError, match="not a regular file"):
        next(read_journal(journal_path(tmp_path, 1), 0))


def test_a_checkpoint_that_is_a_fifo_is_refused_while_all_else_is_answered(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "state.json")
    for data, from_checkpoint, reason in (
        ("few", str(tmp_path), Reason.BAD_CHECKPOINT),
        (str(tmp_path / "state.json"), "", Reason.BAD_DATA),
    ):
        with pytest.raises(M1Error) as caught:
            daemon.client.submit("cifar", data=data, from_checkpoint=from_checkpoint)
        assert caught.value.reason is reason, caught.value
    assert daemon.m1ctl("daemon", "stop").returncode == 0
    assert daemon.process is not None
    assert daemon.process.wait(PATIENCE_S) == 0
