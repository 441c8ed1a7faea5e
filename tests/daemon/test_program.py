"""Any program as a job: queued, watched, held, cancelled, adopted; and whatever it does, nothing is left running."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from harness import PATIENCE_S, RunningDaemon
from m1.errors import M1Error, Reason
from m1.v1 import job_pb2
from m1ctl.sdk.states import FAILED, SUCCEEDED
from m1d.processes.training import is_training
from programs import check_gone, ended, log_of, notices, printed, script

RUNNING, HELD, QUEUED = job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_HELD, job_pb2.JOB_STATE_QUEUED
CANCELLED, PAUSED = job_pb2.JOB_STATE_CANCELLED, job_pb2.JOB_STATE_PAUSED


WAITS = "print('here', os.getpid(), flush=True)\nsignal.pause()"


def test_a_program_runs_as_it_is_and_its_exit_status_is_the_jobs_end(bare: RunningDaemon, tmp_path: Path) -> None:
    command = script(
        tmp_path,
        "print(os.getcwd(), sys.argv[1:], os.environ['COLOUR'], sys.stdin.read())\nprint('b', file=sys.stderr)",
    )
    arguments = ["--cwd", str(tmp_path), "--env", "COLOUR=red", "--env", "OMP_NUM_THREADS", "--", *command]
    done = bare.m1ctl("run", *arguments, "--lr", "0.1", "-o", "x")
    assert done.returncode == 0, done.stderr
    job = ended(bare, bare.client.get(done.stdout.split()[0]))
    assert (job.state, job.name, job.kind) == (SUCCEEDED, "program-1", job_pb2.JOB_KIND_PROGRAM)
    assert log_of(bare, job).splitlines() == [f"{tmp_path} ['--lr', '0.1', '-o', 'x'] red ", "b"]
    assert dict(job.spec.program.environment) == {"COLOUR": "", "OMP_NUM_THREADS": "", "PATH": ""}, (
        "values may be secrets"
    )


def test_a_program_that_fails_is_a_job_that_failed_and_is_not_tried_again_by_itself(
    bare: RunningDaemon, tmp_path: Path
) -> None:
    command = script(tmp_path, "print('no'); sys.exit(3)")
    done = bare.m1ctl("run", "--watch", "--", *command)
    assert done.returncode == 8
    assert "ended with exit status 3" in done.stderr
    job = bare.client.get("program-1")
    assert (job.state, job.error.code, job.attempt) == (FAILED, "PROGRAM_FAILED", 1)
    twice = ended(bare, bare.client.run(command, retries=1))
    assert (twice.state, twice.attempt) == (FAILED, 2)
    assert log_of(bare, twice) == "no\nno\n"


def test_a_program_that_is_killed_says_by_what(bare: RunningDaemon, tmp_path: Path) -> None:
    job = ended(bare, bare.client.run(script(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")))
    assert (job.state, job.error.code) == (FAILED, "PROGRAM_FAILED")
    assert "was killed by SIGKILL" in job.error.message


def test_one_program_runs_at_a_time(bare: RunningDaemon, tmp_path: Path) -> None:
    first = bare.client.run(script(tmp_path, WAITS))
    printed(bare, first, "here")
    second = bare.client.run(["true"], directory=str(tmp_path))
    assert bare.client.get(second.id).state == QUEUED
    bare.client.cancel(first.id)
    assert ended(bare, second).state == SUCCEEDED


def test_a_hold_stops_all_of_it_where_it_stands_and_a_resume_lets_it_go_on(bare: RunningDaemon, tmp_path: Path) -> None:
    (tmp_path / "go").unlink(missing_ok=True)
    command = script(
        tmp_path,
        "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'], start_new_session=True)\n"
        "print('pids', os.getpid(), child.pid, flush=True)\n"
        "while not os.path.exists('go'): time.sleep(0.01)\n"
        "child.kill()",
    )
    job = bare.client.run(command, directory=str(tmp_path))
    pids = [int(pid) for pid in printed(bare, job, r"pids (\d+) (\d+)").groups()]
    bare.client.pause(job.id, hold=True)
    held = bare.client.wait(job, until={HELD})
    assert held.reason == "held"
    assert {psutil.Process(pid).status() for pid in pids} == {psutil.STATUS_STOPPED}
    (tmp_path / "go").touch()
    bare.client.resume(job.id)
    assert ended(bare, job).state == SUCCEEDED


def test_a_cancel_asks_by_sigterm_and_a_held_program_hears_it(bare: RunningDaemon, tmp_path: Path) -> None:
    command = script(
        tmp_path,
        "signal.signal(signal.SIGTERM, lambda *_: (print('asked', flush=True), sys.exit(0)))\n" + WAITS,
    )
    job = bare.client.run(command)
    pid = int(printed(bare, job, r"here (\d+)")[1])
    bare.client.pause(job.id, hold=True)
    bare.client.wait(job, until={HELD})
    assert bare.m1ctl("cancel", job.id).returncode == 0
    assert ended(bare, job).state == CANCELLED
    assert log_of(bare, job).endswith("asked\n")
    check_gone(pid)


def test_a_program_that_ignores_sigterm_is_killed(bare: RunningDaemon, tmp_path: Path) -> None:
    job = bare.client.run(script(tmp_path, "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAITS))
    pid = int(printed(bare, job, r"here (\d+)")[1])
    bare.client.cancel(job.id)
    assert ended(bare, job).state == CANCELLED
    check_gone(pid)


def test_a_pause_of_a_program_that_takes_no_part_is_refused_with_the_way_out(
    bare: RunningDaemon, tmp_path: Path
) -> None:
    job = bare.client.run(script(tmp_path, WAITS), name="mine")
    printed(bare, job, "here")
    for verb in ("pause", "checkpoint"):
        refused = bare.m1ctl(verb, "mine")
        assert refused.returncode == 5
        assert "m1ctl pause --hold mine" in refused.stderr
    stopped = bare.m1ctl("daemon", "stop", "--yield")
    assert stopped.returncode == 5, stopped.stderr
    assert bare.client.get("mine").state == RUNNING
    assert bare.client.get("mine").can_yield is False


def test_a_program_outlives_the_daemon_and_the_next_one_hears_how_it_ended(bare: RunningDaemon, tmp_path: Path) -> None:
    adopted = bare.client.run(script(tmp_path, "print('here', flush=True)\nsys.stdin.close()\n" + WAITS))
    pid = int(printed(bare, adopted, r"here (\d+)")[1])
    bare.kill()
    bare.start()
    assert bare.client.get(adopted.id).state == RUNNING
    bare.kill()
    os.kill(pid, signal.SIGUSR1)
    psutil.wait_procs([keeper_of(bare, adopted)], timeout=PATIENCE_S)
    bare.start()
    job = ended(bare, adopted)
    assert (job.state, job.attempt) == (FAILED, 1)
    assert "was killed by SIGUSR1" in job.error.message


def keeper_of(bare: RunningDaemon, job: job_pb2.Job) -> psutil.Process:
    wanted = str(bare.home / "jobs" / job.id)
    (keeper,) = [
        process
        for process in psutil.process_iter(["cmdline"])
        if "m1d.keeper" in (process.info["cmdline"] or ()) and wanted in process.info["cmdline"]
    ]
    return keeper


def test_a_program_whose_keeper_is_killed_does_not_run_on_beside_the_next_job(
    bare: RunningDaemon, tmp_path: Path
) -> None:
    job = bare.client.run(script(tmp_path, WAITS))
    pid = int(printed(bare, job, r"here (\d+)")[1])
    keeper_of(bare, job).kill()
    job = ended(bare, job)
    assert (job.state, job.error.code) == (FAILED, "PROCESS_DIED")
    check_gone(pid)


LEAVES = {
    "a child": "child = subprocess.Popen(['sleep', '1000'])\nprint('left', child.pid)",
    "a daemon of two forks": (
        "if os.fork(): os.wait(); sys.exit()\n"
        "os.setsid()\n"
        "if os.fork(): os._exit(0)\n"
        "print('left', os.getpid(), flush=True)\nos.chdir('/'); os.closerange(0, 3); signal.pause()"
    ),
    "children that go on forking": (
        "for _ in range(4):\n"
        "    if not os.fork():\n"
        "        while True:\n"
        "            if os.fork(): os._exit(0)\n"
        "print('left', os.getpid(), flush=True)"
    ),
    "one that ignores everything": (
        "child = subprocess.Popen([sys.executable, '-c', 'import signal\\n"
        "for n in (1, 2, 13, 15): signal.signal(n, signal.SIG_IGN)\\nsignal.pause()'], start_new_session=True)\n"
        "print('left', child.pid)"
    ),
    "one without its environment": (
        "child = subprocess.Popen(['sleep', '1000'], env={'PATH': os.environ['PATH']}, start_new_session=True)\n"
        "print('left', child.pid)"
    ),
}


@pytest.mark.parametrize("what", list(LEAVES))
def test_what_a_program_leaves_running_is_killed_and_said(bare: RunningDaemon, tmp_path: Path, what: str) -> None:
    job = ended(bare, bare.client.run(script(tmp_path, LEAVES[what])))
    assert job.state == SUCCEEDED
    found = re.search(r"left (\d+)", log_of(bare, job))
    assert found
    check_gone(int(found[1]))
    assert any("running, which" in message for message in notices(bare, job))


def test_programs_that_end_at_once_are_all_run(bare: RunningDaemon, tmp_path: Path) -> None:
    jobs = [bare.client.run(["true"], directory=str(tmp_path)) for _ in range(8)]
    assert [ended(bare, job).state for job in jobs] == [SUCCEEDED] * 8


def test_a_program_that_deletes_its_directory_and_closes_its_output_does_no_harm(
    bare: RunningDaemon, tmp_path: Path
) -> None:
    (tmp_path / "own").mkdir()
    os.mkfifo(tmp_path / "go")
    command = script(tmp_path, "os.rmdir(os.getcwd()); os.closerange(0, 100); open(sys.argv[1]).read()")
    job = bare.client.run([*command, str(tmp_path / "go")], directory=str(tmp_path / "own"))
    (tmp_path / "go").write_text("go")  # it has closed its output when it opens the other end
    assert ended(bare, job).state == SUCCEEDED


def test_a_program_that_removes_its_jobs_directory_can_be_cancelled(bare: RunningDaemon, tmp_path: Path) -> None:
    command = script(
        tmp_path,
        "import shutil\nprint('here', os.getpid(), flush=True); open('go').read()\n"
        "shutil.rmtree(os.environ['M1JOB_DIRECTORY']); open('gone', 'w').close(); signal.pause()",
    )
    os.mkfifo(tmp_path / "go")
    job = bare.client.run(command, directory=str(tmp_path))
    pid = int(printed(bare, job, r"here (\d+)")[1])
    (tmp_path / "go").write_text("go")
    while not (tmp_path / "gone").exists():
        psutil.wait_procs([psutil.Process(pid)], timeout=0.05)
    bare.client.cancel(job.id)
    assert ended(bare, job).state == CANCELLED
    check_gone(pid)
    assert ended(bare, bare.client.run(["true"], directory=str(tmp_path))).state == SUCCEEDED


REFUSED: dict[str, tuple[list[str], dict[str, object], Reason, str]] = {
    "no command": ([], {}, Reason.INVALID_ARGUMENT, "spec.program.command"),
    "an empty word": ([""], {}, Reason.INVALID_ARGUMENT, "spec.program.command"),
    "NUL": (["echo", "a\0b"], {}, Reason.INVALID_ARGUMENT, "spec.program.command"),
    "too long": (["echo", "x" * 2**17], {}, Reason.TOO_LARGE, "spec.program.command"),
    "no such program": (["nosuchprogram"], {}, Reason.PROGRAM_NOT_FOUND, "spec.program.command"),
    "not executable": (["./file"], {}, Reason.PROGRAM_NOT_FOUND, "spec.program.command"),
    "no such directory": (["true"], {"directory": "/nope"}, Reason.FILE_NOT_FOUND, "spec.program.directory"),
    "a relative directory": (["true"], {"directory": "x"}, Reason.INVALID_ARGUMENT, "spec.program.directory"),
    "a variable of ours": (
        ["true"],
        {"environment": {"M1JOB_ATTEMPT": "2"}},
        Reason.INVALID_ARGUMENT,
        "spec.program.environment",
    ),
    "a bad variable": (["true"], {"environment": {"A=B": "2"}}, Reason.INVALID_ARGUMENT, "spec.program.environment"),
    "too many variables": (
        ["true"],
        {"environment": {"A": "2" * 2**16}},
        Reason.TOO_LARGE,
        "spec.program.environment",
    ),
}


def test_what_could_not_run_is_refused_and_stored_nowhere(bare: RunningDaemon, tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0o600)
    for what, (command, more, reason, field) in REFUSED.items():
        options = {"directory": str(tmp_path), **more}
        with pytest.raises(M1Error) as refused:
            bare.client.run(command, **options)  # type: ignore[arg-type]
        assert (refused.value.reason, refused.value.field) == (reason, field), what
        assert refused.value.hint, what
    (tmp_path / "train.py").touch(mode=0o600)
    (tmp_path / "tool").touch(mode=0o700)
    ways = {
        "./file": "chmod",
        "train.py": "write python train.py",
        "./train.py": "write python",
        "tool": "write ./tool",
    }
    for name, way_out in ways.items():
        with pytest.raises(M1Error) as refused:
            bare.client.run([name], directory=tmp_path)
        assert way_out in refused.value.hint, name
    assert not list(bare.client.list_jobs())
    assert bare.m1ctl("run", "--", "nosuchprogram").returncode == 3
    assert bare.m1ctl("run").returncode == 2
    nothing = bare.m1ctl("run", "--env", "NOT_SET_HERE", "--", "true")
    assert (nothing.returncode, "write --env NOT_SET_HERE=VALUE" in nothing.stderr) == (2, True)


def test_a_script_may_give_paths_and_what_is_of_a_wrong_type_is_refused_by_name(
    bare: RunningDaemon, tmp_path: Path
) -> None:
    job = bare.client.run([Path(sys.executable), "-c", "print('ran')"], directory=tmp_path)
    assert ended(bare, job).state == SUCCEEDED
    assert next(iter(job.spec.program.command)) == sys.executable
    wrong: list[tuple[object, object, str]] = [
        ("python train.py", {}, "a list of texts"),
        (["sleep", 1], {}, "command takes text"),
        (7, {}, "command"),
        (["true"], {"TOKEN": 1}, '"TOKEN" cannot be sent: a variable takes text'),
        (["true"], {"TOKEN": "secret\udc80"}, '"TOKEN" cannot be sent: a variable takes text'),
        (["true"], ["TOKEN=secret"], "a dictionary"),
    ]
    for command, environment, problem in wrong:
        with pytest.raises(M1Error, match=problem) as refused:
            bare.client.run(command, environment=environment)  # type: ignore[arg-type]
        assert refused.value.reason is Reason.INVALID_ARGUMENT
        assert "secret" not in str(refused.value)


def test_what_has_a_dead_programs_number_after_a_reboot_is_let_live(bare: RunningDaemon, tmp_path: Path) -> None:
    """The number of its keeper is by then that of somebody else's session."""
    job = bare.client.run(script(tmp_path, WAITS), directory=str(tmp_path))
    pid = int(printed(bare, job, r"here (\d+)")[1])
    keeper = bare.client.get(job.id).pid
    bare.kill()
    dead = [psutil.Process(keeper), psutil.Process(pid)]
    for process in dead:
        process.kill()
    while is_training(bare.home / "jobs" / job.id):
        psutil.wait_procs(dead, timeout=0.05)
    stranger = subprocess.Popen(["sleep", "600"], start_new_session=True, env={})
    try:
        with sqlite3.connect(bare.home / "m1d.sqlite") as database:
            change = "UPDATE jobs SET body = replace(body, ?, ?)"
            database.execute(change, (f'"pid": {keeper},', f'"pid": {stranger.pid},'))
            assert f'"pid": {stranger.pid},' in database.execute("SELECT body FROM jobs").fetchone()[0]
        bare.start()
        printed(bare, job, r"(?s)here.*here")  # nobody saw it die, so it has begun again
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize(
    "more", [{"recipe": "cifar"}, {"data": "digits"}, {"from_checkpoint": "j1@1"}, {"purpose": "PURPOSE_TUNE"}]
)
def test_a_program_takes_nothing_of_a_recipe(bare: RunningDaemon, more: dict[str, str]) -> None:
    program = job_pb2.Program(command=["true"], directory="/")
    spec = job_pb2.JobSpec(program=program, **more)  # type: ignore[arg-type]
    with pytest.raises(M1Error, match="a program takes none"):
        bare.client._ask(job_pb2.SubmitJobResponse, spec=spec)


def test_the_same_request_is_the_same_job_and_another_one_is_refused(bare: RunningDaemon, tmp_path: Path) -> None:
    first = bare.client.run(["true"], directory=str(tmp_path), request_id="a")
    assert bare.client.run(["true"], directory=str(tmp_path), request_id="a").id == first.id
    with pytest.raises(M1Error, match="belongs to"):
        bare.client.run(["false"], directory=str(tmp_path), request_id="a")


def test_scripts_read_a_program_as_json(bare: RunningDaemon, tmp_path: Path) -> None:
    done = bare.m1ctl("run", "-o", "json", "--cwd", str(tmp_path), "--", "true")
    job = json.loads(done.stdout)["job"]
    assert job["kind"] == "JOB_KIND_PROGRAM"
    assert job["spec"]["program"]["command"] == ["true"]
    assert "true" in bare.m1ctl("list").stdout
    page = bare.m1ctl("show", job["id"]).stdout
    assert re.search(rf"program +true\ndirectory +{tmp_path}", page), page


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A real disk of 24 MiB, under a name that is short enough for a socket."""
    path = Path(tempfile.mkdtemp(prefix="m1-", dir="/tmp"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs", str(path)]
    if os.geteuid() or sys.platform != "linux" or subprocess.run(mount, check=False, capture_output=True).returncode:
        path.rmdir()
        pytest.skip("only root can mount a small disk")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)
    path.rmdir()


def test_a_program_that_fills_the_disk_of_the_home_ends_no_daemon_and_loses_no_end(
    small_disk: Path, tmp_path: Path
) -> None:
    """It fills the disk, prints, and saves; then there is space again."""
    bare = RunningDaemon(small_disk / "h")
    fills = (
        "import m1job\nrun = m1job.attach()\nrun.plan(2)\n"
        "with open(sys.argv[1], 'wb') as file:\n"
        "    try:\n"
        "        while True: file.write(bytes(2**16)); file.flush()\n"
        "    except OSError: pass\n"
        "for _ in range(2000): print('x' * 1000)\n"
        "assert run.save(1, lambda d: (d / 'x').write_bytes(bytes(2**20))) is None\n"
        "os.remove(sys.argv[1])\n"
        "assert run.save(2, lambda d: (d / 'x').write_bytes(bytes(2**20)))\n"
        "print('saved')"
    )
    try:
        bare.start()
        job = bare.client.run([*script(tmp_path, fills), str(small_disk / "fill")], directory=str(tmp_path))
        done = ended(bare, job)
        assert done.state == SUCCEEDED, log_of(bare, done)
        assert [checkpoint.step for checkpoint in bare.client.list_checkpoints(job.id)] == [2]
        log = log_of(bare, done)
        assert log.endswith("saved\n")
        assert "bytes of the output are missing here" in log
        assert any("disk is full" in message for message in notices(bare, done))
        assert ended(bare, bare.client.run(["true"], directory=str(tmp_path))).state == SUCCEEDED
    finally:
        bare.end()


def test_a_program_that_prints_a_gigabyte_leaves_a_small_log(bare: RunningDaemon, tmp_path: Path) -> None:
    prints = "line = b'x' * 1023 + b'\\n'\nfor _ in range(2**16): os.write(1, line * 16)\nprint('the end')"
    done = ended(bare, bare.client.run(script(tmp_path, prints)))
    assert done.state == SUCCEEDED
    directory = bare.home / "jobs" / done.id
    assert sum(path.stat().st_size for path in directory.glob("log*")) < 20 * 2**20
    assert log_of(bare, done).endswith("the end\n")
