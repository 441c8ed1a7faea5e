"""What a job prints, through the daemon: bounded by the training process itself, and read by lines, time and offset."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from harness import PATIENCE_S, RunningDaemon, environment
from m1.job_log import LOG_BYTES
from m1.jobdir import log_path
from m1.paths import Home
from m1.v1 import job_pb2


def on_a_terminal(daemon: RunningDaemon, *arguments: str) -> str:
    ours, its = pty.openpty()
    command = [sys.executable, "-P", "-m", "m1ctl", *arguments]
    subprocess.run(command, stdout=its, env=environment(daemon.home), timeout=PATIENCE_S, check=True)
    os.close(its)
    with open(ours, "rb", buffering=0) as terminal:
        return terminal.read(10_000).decode()


def test_a_log_is_kept_small_by_its_process_and_shown_by_lines_and_since_a_time(held_daemon: RunningDaemon) -> None:
    client = held_daemon.client
    job = client.get("holder")
    log = log_path(Home(held_daemon.home).job(job.id))
    begun = next(client.read_log("holder")).chunk
    held_daemon.kill()  # the process needs no daemon for it
    os.kill(job.pid, signal.SIGSTOP)
    with open(log, "ab") as file:
        file.write(b"".join(b"a line of sixty bytes that somebody has printed: %010d\n" % k for k in range(200_000)))
    os.kill(job.pid, signal.SIGCONT)
    deadline = time.monotonic() + PATIENCE_S
    while not log.with_name("log.1").exists() or log.stat().st_size > LOG_BYTES:
        assert time.monotonic() < deadline
        select.select([], [], [], 0.005)
    held_daemon.start()
    last = "\x1b[31mred\x1b[0m and the last line: é\n".encode()
    with open(log, "ab") as file:
        file.write(last)

    whole = json.loads(held_daemon.m1ctl("logs", "holder", "-o", "json").stdout)
    assert whole["text"].endswith("and the last line: é\n")
    assert whole["dropped_bytes"] > 0
    assert whole["next_offset"] == len(begun) + 200_000 * 60 + len(last)
    shown = held_daemon.m1ctl("logs", "holder", "--tail", "2")
    assert [line[-8:] for line in shown.stdout.splitlines()] == ["00199999", " line: é"]
    assert held_daemon.m1ctl("logs", "holder", "--tail", "0").stdout == ""
    assert (
        on_a_terminal(held_daemon, "logs", "holder", "--tail", "1") == "\\x1b[31mred\\x1b[0m and the last line: é\r\n"
    )
    assert "older output are no longer kept" in held_daemon.m1ctl("logs", "holder").stderr
    assert held_daemon.m1ctl("logs", "holder", "--since", "1h", "--tail", "1").stdout.endswith("line: é\n")
    tomorrow = held_daemon.m1ctl("logs", "holder", "--since", "2999-01-01", "-o", "json")
    assert json.loads(tomorrow.stdout) == {"text": "", "next_offset": whole["next_offset"], "dropped_bytes": 0}
    wrong = held_daemon.m1ctl("logs", "holder", "--since", "yesterday")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    (part,) = held_daemon.client.read_log("holder", offset=whole["next_offset"] - 9)
    assert (part.chunk.decode(), part.dropped_bytes) == ("line: é\n", 0)


def test_a_program_that_prints_without_end_has_a_small_log_too(bare: RunningDaemon, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "for k in range(400_000): print(f'{k:098}')"]
    job = bare.client.run(command, directory=str(tmp_path))
    assert bare.client.wait(job, timeout_s=PATIENCE_S).state == job_pb2.JOB_STATE_SUCCEEDED
    log = log_path(Home(bare.home).job(job.id))
    assert log.stat().st_size + log.with_name("log.1").stat().st_size < 4 * LOG_BYTES
    (part,) = [part for part in bare.client.read_log(job.id, tail=1) if part.chunk]
    assert int(part.chunk) == 399_999
