"""The command line against a real daemon: what it prints, what it ends with, how it waits, how it comes back."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from harness import LONG, PATIENCE_S, RunningDaemon, environment, read_until
from m1.errors import ExitCode
from m1.v1 import checkpoint_pb2, dataset_pb2, event_pb2, job_pb2, metric_pb2, recipe_pb2, system_pb2

SHORT = ("--epochs", "1", "--set", "batch_size=256")


def ok(done: subprocess.CompletedProcess[str]) -> str:
    """What it printed, if all was well."""
    assert done.returncode == ExitCode.OK, done.stderr
    return done.stdout


# What came with grpc, protobuf and the other verbs before `m1ctl list` was made to start sooner.
UNUSED = {
    *("asyncio.base_events", "google.protobuf.internal.decoder", "google.protobuf.json_format", "grpc.aio._channel"),
    *("hashlib", "importlib.metadata", "json", "m1.columns", "m1.profile", "m1.settings", "selectors", "tempfile"),
    *("m1ctl.commands.bench", "m1ctl.commands.submit", "m1ctl.views.monitor", "rich"),
}
# `m1ctl list`, which says on its last line what it has loaded.
LIST_AND_SAY = """
import os, sys
leave = os._exit
def say_and_leave(code):
    print(*sys.modules, flush=True)
    leave(code)
os._exit = say_and_leave
sys.argv = ["m1ctl", "list"]
from m1ctl.__main__ import main
main()
"""


@pytest.fixture
def started(quiet_daemon: RunningDaemon) -> Iterator[RunningDaemon]:
    """A home whose daemon the command line starts; it has gone afterwards."""
    yield quiet_daemon
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "m1d" in command and str(quiet_daemon.home) in command:
            process.kill()


def test_a_job_is_submitted_watched_to_its_end_and_read_afterwards(daemon: RunningDaemon) -> None:
    done = daemon.m1ctl("submit", "cifar", "--data", "digits", *SHORT, "--name", "first", "--watch")
    lines = ok(done).splitlines()
    assert lines[0] == "j1 first"
    states = [line.split("  ")[2] for line in lines if "  j1 (first)  " in line]
    assert states == ["queued → starting", "starting → running", "running → succeeded"]
    for words in ("step 6/6", "val after step 6:", "checkpoint j1@6", "test after step 6:"):
        assert words in done.stdout, words

    assert re.search(r"j1 +first +cifar +succeeded +epoch 1/1  100 %", ok(daemon.m1ctl("list")))
    page = ok(daemon.m1ctl("show", "first"))
    assert "batch_size               256" in page
    assert re.search(r"val/accuracy +\d+\.\d\d %", ok(daemon.m1ctl("metrics", "first")))
    assert len(ok(daemon.m1ctl("metrics", "first", "train/loss", "--points", "3")).splitlines()) == 4
    assert ok(daemon.m1ctl("checkpoints", "first")).splitlines()[1].startswith("j1@6")
    assert "succeeded" in ok(daemon.m1ctl("logs", "first"))
    assert "succeeded" in ok(daemon.m1ctl("logs", "-f", "first"))
    assert ok(daemon.m1ctl("watch", "first")).startswith("j1 (first)  succeeded")
    assert daemon.m1ctl("pause", "first").returncode == ExitCode.WRONG_STATE
    assert daemon.m1ctl("metrics", "first", "train/los").returncode == ExitCode.NOT_FOUND

    ok(daemon.m1ctl("delete", "j1@6"))
    assert list(daemon.client.list_checkpoints("first")) == []
    ok(daemon.m1ctl("delete", "first"))
    assert daemon.m1ctl("show", "first").returncode == ExitCode.NOT_FOUND


def test_listing_jobs_loads_nothing_that_only_others_use(quiet_daemon: RunningDaemon) -> None:
    quiet_daemon.start()
    command = [sys.executable, "-P", "-c", LIST_AND_SAY]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(quiet_daemon.home))
    assert "no jobs yet" in done.stderr
    loaded = set(ok(done).splitlines()[-1].split())
    assert {"grpc", "typer", "m1ctl.commands.jobs", "m1.v1.job_pb2"} <= loaded
    assert loaded & UNUSED == set()


def test_what_is_deferred_is_there_for_whoever_looks_into_it() -> None:
    code = """
import sys
from m1ctl.deferred import defer
defer()
import grpc, asyncio, subprocess
assert not {"asyncio.base_events", "selectors", "grpc.aio._channel"} & set(sys.modules)
print(grpc.aio.insecure_channel.__name__, grpc.aio.Channel.__module__)
print(asyncio.run(asyncio.sleep(0, "ran")), subprocess.run([sys.executable, "-c", ""]).returncode)
from asyncio import events
import asyncio.queues
assert asyncio.__spec__.name == "asyncio" and events is sys.modules["asyncio.events"]
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["insecure_channel", "grpc.aio._base_channel", "ran", "0"], done.stderr


# In an order in which each of them finds the job in a state that it takes.
RESPONSES: list[tuple[str, type[Message]]] = [
    ("list", job_pb2.ListJobsResponse),
    ("show holder", job_pb2.GetJobResponse),
    ("metrics holder", job_pb2.GetJobResponse),
    ("metrics holder train/loss", metric_pb2.GetMetricSeriesResponse),
    ("checkpoint", checkpoint_pb2.CreateCheckpointResponse),
    ("checkpoints", checkpoint_pb2.ListCheckpointsResponse),
    ("recipes", recipe_pb2.ListRecipesResponse),
    ("recipes show cifar", recipe_pb2.GetRecipeResponse),
    ("data list", dataset_pb2.ListDatasetsResponse),
    ("daemon status", system_pb2.GetSystemInfoResponse),
    ("status", system_pb2.GetSystemInfoResponse),
    ("submit cifar --data digits", job_pb2.SubmitJobResponse),
    ("pause --hold holder", job_pb2.PauseJobResponse),
    ("resume", job_pb2.ResumeJobResponse),
    ("pause", job_pb2.PauseJobResponse),
    ("cancel holder", job_pb2.CancelJobResponse),
]


def test_json_is_the_response_message(held_daemon: RunningDaemon) -> None:
    for arguments, response in RESPONSES:
        printed = ok(held_daemon.m1ctl(*arguments.split(), "-o", "json"))
        json_format.Parse(printed, response())  # refuses what the message does not have
        names = {field.name for field in response.DESCRIPTOR.fields if not field.has_presence}
        assert set(json.loads(printed)) >= names, arguments


def test_a_log_as_json_is_text(held_daemon: RunningDaemon) -> None:
    log = json.loads(ok(held_daemon.m1ctl("logs", "holder", "-o", "json")))
    assert log["text"] == ok(held_daemon.m1ctl("logs", "holder"))
    assert log["next_offset"] == len(log["text"].encode())


def test_a_setting_that_is_wrong_changes_nothing(daemon: RunningDaemon) -> None:
    done = daemon.m1ctl("submit", "cifar", "--set", "lr=banana")
    assert done.returncode == ExitCode.USAGE
    assert done.stdout == ""
    assert done.stderr == 'm1ctl: the setting lr="banana" is not a number: lr takes a number, from 0 to 10\n'
    assert list(daemon.client.list_jobs()) == []


def test_data_that_is_damaged_is_named_and_nothing_is_queued(daemon: RunningDaemon, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for kind in ("cat", "dog"):
            (tmp_path / "images" / split / kind).mkdir(parents=True)
            (tmp_path / "images" / split / kind / "one.png").write_bytes(b"no image")
    done = daemon.m1ctl("submit", "cifar", "--data", "images", cwd=tmp_path)
    assert done.returncode == ExitCode.USAGE
    assert "one.png" in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("m1ctl: ")
    assert list(daemon.client.list_jobs()) == []


def test_the_same_request_is_the_same_job(held_daemon: RunningDaemon) -> None:
    command = ("submit", "cifar", "--data", "digits", "--name", "once", "--request-id", "r1")
    assert ok(held_daemon.m1ctl(*command)) == ok(held_daemon.m1ctl(*command)) == "j2 once\n"


def test_a_list_has_only_the_states_that_were_asked_for(held_daemon: RunningDaemon) -> None:
    ok(held_daemon.m1ctl("submit", "cifar", "--data", "digits", "--name", "waits"))
    assert "holder" not in ok(held_daemon.m1ctl("list", "--state", "queued"))
    assert "waits" in ok(held_daemon.m1ctl("list", "--state", "queued", "--state", "held"))


def test_a_pause_returns_when_the_machine_is_free(held_daemon: RunningDaemon) -> None:
    assert ok(held_daemon.m1ctl("pause")) == "j1 holder paused\n"
    assert held_daemon.client.get("holder").pid == 0
    assert ok(held_daemon.m1ctl("checkpoints", "holder")).count("j1@") == 1


def test_a_pause_that_takes_longer_than_it_may_is_timed_out_and_goes_on(daemon: RunningDaemon) -> None:
    job = daemon.client.submit("cifar", data="digits", settings=LONG, name="slow")
    daemon.client.wait(job, until={job_pb2.JOB_STATE_RUNNING})
    pid = daemon.client.get("slow").pid
    os.kill(pid, signal.SIGSTOP)
    try:
        done = daemon.m1ctl("--timeout", "1", "pause", "slow")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert done.returncode == ExitCode.TIMED_OUT
    assert done.stderr == (
        'm1ctl: job "j1" was not paused after 1 s: the request stands; follow it with m1ctl watch j1\n'
    )
    job = daemon.client.wait(daemon.client.get("slow"), until={job_pb2.JOB_STATE_PAUSED})
    assert job.state == job_pb2.JOB_STATE_PAUSED


def test_a_watch_of_a_job_that_is_cancelled_ends_with_a_sentence(held_daemon: RunningDaemon) -> None:
    watch = held_daemon.begin_m1ctl("watch", "holder")
    read_until(watch.stdout, "j1 (holder)  held")
    ok(held_daemon.m1ctl("cancel", "holder"))
    _, errors = watch.communicate(timeout=PATIENCE_S)
    assert watch.returncode == ExitCode.ERROR
    assert "job j1 (holder) was cancelled" in errors.splitlines()[-1]


def test_a_watch_of_a_job_that_has_ended_prints_its_last_state_change_as_json(held_daemon: RunningDaemon) -> None:
    ok(held_daemon.m1ctl("cancel", "holder"))
    done = held_daemon.m1ctl("watch", "holder", "-o", "json")
    assert done.returncode == ExitCode.ERROR
    (line,) = done.stdout.splitlines()
    response = json_format.Parse(line, event_pb2.WatchResponse())
    (event,) = response.events
    assert response.job.state == job_pb2.JOB_STATE_CANCELLED
    assert json.loads(done.stderr)["error"]["reason"] == "JOB_CANCELLED"
    assert event.state_changed.to == job_pb2.JOB_STATE_CANCELLED
    assert event.state_changed.job.id == "j1"


def test_a_watch_as_json_begins_with_the_job_and_has_stats_only_when_they_are_wanted(
    held_daemon: RunningDaemon,
) -> None:
    for options, has_stats in ((("--stats",), True), ((), False)):
        watch = held_daemon.begin_m1ctl("watch", "holder", "-o", "json", *options)
        assert watch.stdout is not None
        lines = [json_format.Parse(next(watch.stdout), event_pb2.WatchResponse())]
        assert (lines[0].job.name, lines[0].job.state) == ("holder", job_pb2.JOB_STATE_HELD)
        if has_stats:
            lines.append(json_format.Parse(next(watch.stdout), event_pb2.WatchResponse()))
        else:
            held_daemon.client.cancel("holder")
            lines += [json_format.Parse(line, event_pb2.WatchResponse()) for line in watch.stdout]
            assert lines[-1].events[-1].state_changed.to == job_pb2.JOB_STATE_CANCELLED
            assert all(line.events for line in lines[1:])
        assert any(line.HasField("stats") for line in lines) == has_stats
        watch.kill()
        watch.communicate()


def test_a_metric_without_a_job_is_one_of_the_job_that_runs(held_daemon: RunningDaemon) -> None:
    assert ok(held_daemon.m1ctl("metrics", "train/loss")) == ok(held_daemon.m1ctl("metrics", "holder", "train/loss"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_under_the_output_is_one_sentence(held_daemon: RunningDaemon) -> None:
    for arguments in (("list",), ("list", "-o", "json"), ("logs", "holder"), ("watch", "holder")):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "m1ctl", *arguments],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=PATIENCE_S,
                check=False,
                env=environment(held_daemon.home),
            )
        assert done.returncode == ExitCode.ERROR
        problem = "the output cannot be written: No space left on device"
        if "json" in arguments:
            assert json.loads(done.stderr)["error"]["message"] == problem
        else:
            assert done.stderr == f"m1ctl: {problem}\n"


def test_ctrl_c_on_a_watch_detaches_and_the_job_goes_on(held_daemon: RunningDaemon) -> None:
    watch = held_daemon.begin_m1ctl("watch", "holder")
    read_until(watch.stdout, "system: ")
    watch.send_signal(signal.SIGINT)
    _, errors = watch.communicate(timeout=PATIENCE_S)
    assert watch.returncode == ExitCode.INTERRUPTED
    assert errors == "detached; j1 keeps running (m1ctl watch j1 to reattach)\n"
    assert held_daemon.client.get("holder").state == job_pb2.JOB_STATE_HELD


def test_a_watch_outlives_the_daemon_and_misses_nothing(held_daemon: RunningDaemon) -> None:
    watch = held_daemon.begin_m1ctl("watch", "holder", "-o", "json")
    assert watch.stdout is not None
    first = json_format.Parse(watch.stdout.readline(), event_pb2.WatchResponse())
    held_daemon.kill()
    held_daemon.start()
    held_daemon.client.resume("holder")
    held_daemon.client.wait(held_daemon.client.get("holder"), until={job_pb2.JOB_STATE_RUNNING})
    held_daemon.client.cancel("holder")
    output, errors = watch.communicate(timeout=PATIENCE_S)
    responses = [json_format.Parse(line, event_pb2.WatchResponse()) for line in output.splitlines()]
    events = [event for response in responses for event in response.events]
    revisions = [event.revision for event in events]
    assert revisions == sorted(set(revisions))
    states = [event.state_changed.to for event in events if event.HasField("state_changed")]
    assert states == [job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_CANCELLED]
    assert revisions[0] > first.cursor
    assert errors.splitlines()[:2] == [
        "lost connection to the daemon; retrying for 30 s",
        "reconnected",
    ]
    assert watch.returncode == ExitCode.ERROR


def test_a_reader_that_has_seen_enough_ends_the_watch_quietly(held_daemon: RunningDaemon) -> None:
    watch = held_daemon.begin_m1ctl("watch", "holder", "-o", "json")
    assert watch.stdout is not None
    assert watch.stderr is not None
    watch.stdout.readline()
    watch.stdout.close()
    watch.wait(PATIENCE_S)
    assert watch.stderr.read() == ""
    watch.stderr.close()


def test_the_monitor_draws_on_a_terminal_and_ctrl_c_restores_it(held_daemon: RunningDaemon) -> None:
    monitor, terminal = pty.openpty()
    watch = subprocess.Popen(
        [sys.executable, "-P", "-m", "m1ctl", "watch", "holder"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment(held_daemon.home) | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40", "NO_COLOR": "1"},
        start_new_session=True,
    )
    os.close(terminal)
    shown = read_terminal(monitor, "thermal")
    watch.send_signal(signal.SIGINT)
    shown += read_terminal(monitor, "to reattach")
    assert watch.wait(PATIENCE_S) == ExitCode.INTERRUPTED
    os.close(monitor)
    for words in ("j1 (holder)", "held", "loss ", "cpu", "\x1b[?25h"):
        assert words in shown, words
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", shown)


def test_ctrl_z_gives_the_terminal_back_and_the_monitor_draws_again(held_daemon: RunningDaemon) -> None:
    monitor, terminal = pty.openpty()
    watch = subprocess.Popen(
        [sys.executable, "-P", "-m", "m1ctl", "watch", "holder"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment(held_daemon.home) | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40", "NO_COLOR": "1"},
        process_group=0,  # in this session: a process without a parent in it is never stopped
    )
    os.close(terminal)
    assert "\x1b[?25h" not in read_terminal(monitor, "thermal")
    watch.send_signal(signal.SIGTSTP)
    read_terminal(monitor, "\x1b[?25h")
    assert os.WIFSTOPPED(os.waitpid(watch.pid, os.WUNTRACED)[1])
    watch.send_signal(signal.SIGCONT)
    assert "\x1b[?25l" in read_terminal(monitor, "thermal")
    watch.send_signal(signal.SIGINT)
    read_terminal(monitor, "to reattach")
    assert watch.wait(PATIENCE_S) == ExitCode.INTERRUPTED
    os.close(monitor)


def read_terminal(fd: int, words: str) -> str:
    """What a terminal was sent, up to these words."""
    shown, end = b"", time.monotonic() + PATIENCE_S
    while words not in shown.decode(errors="replace"):
        assert select.select([fd], [], [], max(0, end - time.monotonic()))[0], shown
        try:
            shown += os.read(fd, 65536)
        except OSError as error:  # nobody writes to it any more
            raise AssertionError(f"it ended without {words!r}: {shown!r}") from error
    return shown.decode(errors="replace")


def test_a_checkpoint_is_made_and_downloaded(held_daemon: RunningDaemon, tmp_path: Path) -> None:
    made = ok(held_daemon.m1ctl("checkpoint"))
    match = re.fullmatch(r"(j1@(\d+))  step (\d+)  [\d.]+ MB\n", made)
    assert match
    assert match[2] == match[3]
    assert ok(held_daemon.m1ctl("download", match[1], str(tmp_path / "here"))) == f"{tmp_path / 'here'}\n"
    assert (tmp_path / "here" / "weights.safetensors").stat().st_size > 5_000_000
    assert held_daemon.m1ctl("download", match[1], str(tmp_path / "here")).returncode == ExitCode.USAGE
    assert held_daemon.m1ctl("download", "j1@999", str(tmp_path / "there")).returncode == ExitCode.NOT_FOUND


def test_no_job_runs_and_none_was_named(daemon: RunningDaemon) -> None:
    for verb in ("show", "watch", "pause", "checkpoint", "logs"):
        done = daemon.m1ctl(verb)
        assert done.returncode == ExitCode.NOT_FOUND
        assert done.stderr == "m1ctl: no job runs now: name one; m1ctl list shows them all\n"


def test_the_daemon_starts_in_the_background_once_and_stops(started: RunningDaemon) -> None:
    first = started.m1ctl("daemon", "start")
    ok(first)
    pid = re.search(r"pid (\d+)", first.stderr)
    assert pid
    again = started.m1ctl("daemon", "start")
    ok(again)
    assert again.stderr.startswith("already running: m1d ")
    assert f"pid {pid[1]}," in again.stderr
    assert re.search(rf"^pid +{pid[1]}$", ok(started.m1ctl("daemon", "status")), re.MULTILINE)
    process = psutil.Process(int(pid[1]))
    assert os.getsid(process.pid) == process.pid
    ok(started.m1ctl("daemon", "stop"))
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    assert started.m1ctl("daemon", "stop").returncode == ExitCode.UNREACHABLE


def test_of_three_starts_at_once_each_ends_when_the_one_daemon_serves(started: RunningDaemon) -> None:
    starts = [started.begin_m1ctl("daemon", "start") for _ in range(3)]
    told = [start.communicate(timeout=PATIENCE_S)[1] for start in starts]
    assert [start.returncode for start in starts] == [ExitCode.OK] * 3, told
    assert len({re.findall(r"pid (\d+)", words)[-1] for words in told}) == 1, told
    ok(started.m1ctl("daemon", "stop"))


def test_a_daemon_that_cannot_start_says_why_in_its_own_words(started: RunningDaemon) -> None:
    started.home.chmod(0o755)
    done = started.m1ctl("daemon", "start")
    assert done.returncode == ExitCode.NOT_ALLOWED
    (line,) = done.stderr.splitlines()
    assert line.startswith("m1ctl: ")
    assert str(started.home) in line


def test_a_stop_that_yields_leaves_no_process_and_the_next_daemon_goes_on(started: RunningDaemon) -> None:
    ok(started.m1ctl("daemon", "start"))
    job = started.client.submit("cifar", data="digits", settings=LONG, name="parked")
    pid = started.client.wait(job, until={job_pb2.JOB_STATE_RUNNING}).pid
    ok(started.m1ctl("daemon", "stop", "--yield"))
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    ok(started.m1ctl("daemon", "start"))
    assert started.client.connection.wait_until_ready(PATIENCE_S)
    job = started.client.wait("parked", until={job_pb2.JOB_STATE_RUNNING})
    assert job.state == job_pb2.JOB_STATE_RUNNING
    ok(started.m1ctl("cancel", "parked"))
    ok(started.m1ctl("daemon", "stop"))


def test_images_are_imported_under_a_name(daemon: RunningDaemon, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for split in ("train", "test"):
        for index, kind in enumerate(("cat", "dog")):
            (tmp_path / split / kind).mkdir(parents=True)
            for number in range(12):
                shade = (number * 9, 120 * index, 40)
                image.new("RGB", (40, 30), shade).save(tmp_path / split / kind / f"{number}.png")
    assert ok(daemon.m1ctl("data", "import", "pets", ".", cwd=tmp_path)) == (
        "pets: images 32 px squeeze, 2 classes; train 24, test 24\n"
    )
    assert re.search(
        r"pets +yes +images 32 px squeeze, 2 classes +train 24, test 24 ", ok(daemon.m1ctl("data", "list"))
    )
