"""A program that takes part: metrics, progress, checkpoints, an honest pause; by m1job, or by the protocol alone."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import m1job
import pytest
from harness import RunningDaemon
from m1.errors import M1Error
from m1.jobdir import Desired, Want, checkpoint_path, write_desired
from m1.journal import Joined, JournalWriter, Leaving, Metrics, Notice, Plan, Started, journal_path, read_journal
from m1.paths import Home
from m1.v1 import job_pb2
from m1ctl.sdk.states import SUCCEEDED
from programs import ended, log_of, notices, printed, script

RUNNING, PAUSED = job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_PAUSED

# Adds up its steps; a file called "go" lets it take as many as the file says.
COUNTS = """
import json, m1job
run = m1job.attach(every_s=1e9, keep=2)
newest, total = run.resume(), 0
if newest:
    total = json.loads((newest / "deep" / "total.json").read_text())
print("pid", os.getpid(), flush=True)
print("begins", run.resumed_step, total, flush=True)
def write(directory):
    (directory / "deep").mkdir()
    (directory / "deep" / "total.json").write_text(json.dumps(total))
for step in run.steps(40):
    while not run.wants_machine and not run.wants_checkpoint and step > int(open("go").read() or 0):
        time.sleep(0.01)
    total += step
    run.log(step, loss=1 / step)
    if run.wants_checkpoint:
        run.save(step, write, {"val/total": total})
    print("did", step, flush=True)
print("ends", run.step, total, run.left_early)
"""


def allow(directory: Path, steps: int) -> None:
    """Let the counting program take steps up to this one."""
    (directory / "go.new").write_text(str(steps))
    (directory / "go.new").rename(directory / "go")


def counting(daemon: RunningDaemon, directory: Path, steps: int, retries: int = 0) -> job_pb2.Job:
    """A counting program that has done so many steps."""
    allow(directory, steps)
    job = daemon.client.run(script(directory, COUNTS), directory=str(directory), retries=retries)
    printed(daemon, job, rf"did {steps}\n")
    return job


def test_a_pause_leaves_at_a_checkpoint_and_a_resume_goes_on_from_it(bare: RunningDaemon, tmp_path: Path) -> None:
    job = counting(bare, tmp_path, 5)
    assert bare.client.get(job.id).can_yield
    bare.client.pause(job.id)
    paused = bare.client.wait(job, until={PAUSED})
    assert (paused.progress.step, paused.progress.total_steps) == (6, 40), "one more step, at whose end it saved"
    (checkpoint,) = bare.client.list_checkpoints(job.id)
    assert (checkpoint.step, dict(checkpoint.metrics)) == (6, {"val/total": 21})
    allow(tmp_path, 40)
    bare.client.resume(job.id)
    done = ended(bare, job)
    assert (done.state, done.attempt, done.latest_metrics["train/loss"]) == (SUCCEEDED, 2, 1 / 40)
    assert "begins 6 21" in log_of(bare, job)
    assert log_of(bare, job).endswith(f"ends 40 {sum(range(41))} False\n")
    assert "its own affair" in bare.m1ctl("show", job.id).stdout


def test_a_checkpoint_that_is_asked_for_is_made_and_downloaded_with_its_folders(
    bare: RunningDaemon, tmp_path: Path
) -> None:
    job = counting(bare, tmp_path, 3)
    checkpoint = bare.client.create_checkpoint(job.id)
    assert checkpoint.step == 4
    target = tmp_path / "taken"
    done = bare.m1ctl("download", checkpoint.id, str(target))
    assert done.returncode == 0, done.stderr
    assert json.loads((target / "deep" / "total.json").read_text()) == 10
    for reference, problem in ((str(target), "is not a checkpoint"), (checkpoint.id, "a program's own")):
        with pytest.raises(M1Error, match=problem):
            bare.client.submit("cifar", from_checkpoint=reference)
    (tmp_path / "x.jpg").touch()
    for asked in ([job.name], [job.name, "--checkpoint", checkpoint.id]):
        answer = bare.m1ctl("predict", *asked, str(tmp_path / "x.jpg"))
        assert (answer.returncode, "m1d does not know its model" in answer.stderr) == (2, True)


def test_a_held_program_is_paused_too(bare: RunningDaemon, tmp_path: Path) -> None:
    job = counting(bare, tmp_path, 2)
    bare.client.pause(job.id, hold=True)
    bare.client.wait(job, until={job_pb2.JOB_STATE_HELD})
    bare.client.pause(job.id)
    assert bare.client.wait(job, until={PAUSED}).progress.step == 3


def test_a_killed_program_goes_on_from_its_newest_good_checkpoint(bare: RunningDaemon, tmp_path: Path) -> None:
    job = counting(bare, tmp_path, 3, retries=1)
    steps = [bare.client.create_checkpoint(job.id).step for _ in range(3)]
    assert steps == [4, 5, 6]
    assert [checkpoint.step for checkpoint in bare.client.list_checkpoints(job.id)] == [6, 5], "it keeps two"
    damaged = checkpoint_path(Home(bare.home).job(job.id), 6) / "deep" / "total.json"
    damaged.write_text("999999")
    allow(tmp_path, 40)
    (pid,) = (int(line.split()[1]) for line in log_of(bare, job).splitlines() if line.startswith("pid"))
    os.kill(pid, signal.SIGKILL)
    done = ended(bare, job)
    assert (done.state, done.attempt) == (SUCCEEDED, 2)
    assert "begins 5 15" in log_of(bare, job)
    assert log_of(bare, job).endswith(f"ends 40 {sum(range(41))} False\n")
    assert any("checkpoint of step 6 is damaged" in message for message in notices(bare, done))


def test_sigterm_of_the_machine_is_a_checkpoint_and_another_turn(bare: RunningDaemon, tmp_path: Path) -> None:
    job = counting(bare, tmp_path, 3)
    os.kill(bare.client.get(job.id).pid, signal.SIGTERM)
    printed(bare, job, "begins 4 10")
    allow(tmp_path, 40)
    done = ended(bare, job)
    assert (done.state, done.attempt) == (SUCCEEDED, 2)
    assert log_of(bare, job).endswith(f"ends 40 {sum(range(41))} False\n")


def test_a_cancelled_program_does_not_wait_for_its_next_step(bare: RunningDaemon, tmp_path: Path) -> None:
    job = counting(bare, tmp_path, 3)
    bare.client.cancel(job.id)
    assert ended(bare, job).state == job_pb2.JOB_STATE_CANCELLED
    assert not list(bare.client.list_checkpoints(job.id))


def test_a_program_that_leaves_without_a_checkpoint_says_so(bare: RunningDaemon, tmp_path: Path) -> None:
    command = script(
        tmp_path,
        "import m1job\nrun = m1job.attach()\n"
        "for step in run.steps(10**6): print('did', step, flush=True); time.sleep(0.01)",
    )
    job = bare.client.run(command)
    printed(bare, job, "did 3")
    bare.client.pause(job.id)
    paused = bare.client.wait(job, until={PAUSED})
    assert any("without a checkpoint" in message for message in notices(bare, paused))


# In plain shell: gzip knows a CRC-32, and printf and head what remains.
IN_SHELL = r"""
say() {
    payload=$(printf '{"kind": "%s", "time": %s, "record": %s}' "$1" "$(date +%s)" "$2")
    length=$(printf %s "$payload" | wc -c)
    {
        for shift in 0 8 16 24; do printf "\\$(printf %03o $((length >> shift & 255)))"; done
        printf %s "$payload" | gzip -c | tail -c 8 | head -c 4
        printf %s "$payload"
    } > record
    cat record >> "$M1JOB_DIRECTORY/journal-$M1JOB_ATTEMPT"
}
step=0
[ -f saved ] && step=$(cat saved)
say plan "{\"step\": $step, \"epoch\": 0, \"total_steps\": 1000, \"total_epochs\": 0}"
say joined '{}'
while [ "$step" -lt 1000 ]; do
    step=$((step + 1))
    say metrics "{\"step\": $step, \"epoch\": 0, \"values\": {\"train/loss\": $step}, \"of_step\": true}"
    if grep -q yield "$M1JOB_DIRECTORY/desired.json"; then
        echo "$step" > saved
        say leaving "{\"step\": $step}"
        exit 0
    fi
    [ -f stop ] && exit 0
done
"""


def test_a_shell_script_speaks_the_protocol(bare: RunningDaemon, tmp_path: Path) -> None:
    (tmp_path / "job.sh").write_text(IN_SHELL)
    job = bare.client.run(["sh", "job.sh"], directory=str(tmp_path))
    for response in bare.client.watch(job.id, from_revision=job.revision + 1):
        if any(event.metrics_recorded.step >= 2 for event in response.events):
            break
    bare.client.pause(job.id)
    paused = bare.client.wait(job, until={PAUSED})
    saved = int((tmp_path / "saved").read_text())
    assert paused.latest_metrics["train/loss"] == paused.progress.step == saved
    (tmp_path / "stop").touch()
    bare.client.resume(job.id)
    done = ended(bare, job)
    assert (done.state, done.progress.step) == (SUCCEEDED, saved + 1)
    assert (done.state, done.attempt) == (SUCCEEDED, 2)


def test_a_record_of_a_program_that_no_journal_takes_is_what_its_job_says(bare: RunningDaemon, tmp_path: Path) -> None:
    """Not "a training process", and not that it ended without a word."""
    says = (
        "from m1job.directory import Journal\n"
        "Journal(os.environ['M1JOB_DIRECTORY'], 1).append('metrics', {'step': -1, 'epoch': 0, 'values': {}})"
    )
    done = ended(bare, bare.client.run(script(tmp_path, says)))
    assert done.error.message == "its journal is damaged, so nothing is known of its end but exit status 0"
    assert any("step: -1 is not" in message for message in notices(bare, done))


# Without a daemon


def test_without_a_daemon_all_of_it_does_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("M1JOB_DIRECTORY", raising=False)
    monkeypatch.chdir(tmp_path)
    run = m1job.attach()
    assert run.resume() is None
    assert list(run.steps(3)) == [1, 2, 3]
    assert list(run.steps(3, start=2)) == [3]
    run.log(1, loss=0.5)
    run.notice("hello")
    assert (run.wants_checkpoint, run.wants_machine, run.left_early) == (False, False, False)
    assert run.save(1, lambda directory: pytest.fail(f"asked to write {directory}")) is None
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


OF_EVERY_PYTHON = {"os", "os.path", "posixpath", "genericpath", "stat", "_stat", "_collections_abc"}
"""What a Python without `-S` has loaded before the first line."""


def test_it_imports_nothing_heavy_and_runs_where_nothing_is_installed() -> None:
    code = "import sys; before = set(sys.modules); import m1job; print(*sorted(set(sys.modules) - before))"
    package = str(Path(m1job.__file__).parents[1])
    asked = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {package!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(asked.stdout.split()) - OF_EVERY_PYTHON <= {"__future__", "m1job", "m1job.run", "time"}


# In a job's directory, with nobody else there


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of a job, with a journal that its keeper has begun."""
    path = tmp_path / "j1"
    path.mkdir()
    JournalWriter(journal_path(path, 1)).append(Started(1, None))
    monkeypatch.setenv("M1JOB_DIRECTORY", str(path))
    monkeypatch.setenv("M1JOB_ATTEMPT", "1")
    before = signal.getsignal(signal.SIGTERM)
    yield path
    signal.signal(signal.SIGTERM, before)


def records(directory: Path) -> Sequence[object]:
    return [entry.record for entry in read_journal(journal_path(directory, 1), 0, limit_bytes=2**24)]


def test_a_flood_of_metrics_is_thinned_and_the_last_of_it_stays(directory: Path) -> None:
    run = m1job.attach()
    for step in run.steps(20_000):
        run.log(step, loss=step)
    said = [record for record in records(directory) if isinstance(record, Metrics)]
    assert len(said) < 5000
    assert said[-1].values == {"train/loss": 20_000}


def test_metrics_are_numbers_and_what_is_none_is_refused_by_name(directory: Path) -> None:
    class Tensor:
        def item(self) -> float:
            return 0.25

    run = m1job.attach()
    run.log(1, {"val/accuracy": 1}, loss=Tensor(), bad=float("nan"))
    (said,) = [record for record in records(directory) if isinstance(record, Metrics)]
    assert said.values["train/loss"] == 0.25
    assert said.values["val/accuracy"] == 1
    assert said.values["train/bad"] != said.values["train/bad"]
    assert said.of_step is False
    with pytest.raises(TypeError, match="loss='much' is not a number"):
        run.log(2, loss="much")


def test_what_a_program_logs_of_another_step_does_not_move_the_loop(directory: Path) -> None:
    run, done = m1job.attach(every_s=0), []
    for step in run.steps(3):
        done.append(step)
        run.log(step - 1, loss=step)  # counted from 0, as many do
        assert run.wants_checkpoint
        run.save(step - 1, lambda path: (path / "x").write_text("x"))
        assert len(done) < 5
    assert (done, run.step) == ([1, 2, 3], 3)
    assert [record.step for record in records(directory) if isinstance(record, Metrics)] == [0, 1, 2]


def test_what_the_journal_could_not_take_is_refused_where_it_is_said(directory: Path) -> None:
    run = m1job.attach()
    for step in (-1, 2**32, 0.5, "7", None):
        with pytest.raises((TypeError, ValueError), match="step="):
            run.log(step, loss=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"loss=1000.* is not a number"):
        run.log(1, loss=10**400)
    with pytest.raises(TypeError, match="3 is not the name of a metric"):
        run.log(1, {3: 1.0})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="total=-1: steps are counted from 0"):
        run.plan(-1)
    with pytest.raises(TypeError, match="loss='x' is not a number"):
        run.save(1, lambda path: (path / "x").write_text("x"), {"loss": "x"})
    assert not list(directory.glob("checkpoints/*")), "a checkpoint of which nobody would know"
    run.log(2.0, {"a\udc80b": 1})  # type: ignore[arg-type]
    run.notice("\udc80")
    assert list(run.steps(1e1, start=9)) == [10]  # type: ignore[arg-type]
    assert {type(record) for record in records(directory)} == {Started, Metrics, Notice, Plan, Joined}


def test_a_loop_that_the_program_breaks_when_the_machine_is_wanted_has_not_ended(directory: Path) -> None:
    run, done = m1job.attach(), []
    for step in run.steps(9):
        if step == 2:
            break
    assert not any(isinstance(record, Leaving) for record in records(directory)), "its own decision, nobody asked"
    write_desired(directory, Desired(Want.YIELD))
    for step in run.steps(9):
        if run.wants_machine:
            run.save(step, lambda path: (path / "x").write_text("x"))
            break
    assert run.left_early
    assert records(directory)[-1] == Leaving(1)
    done = list(run.steps(9)) + list(run.steps(20))
    assert (done, records(directory)[-1]) == ([], Leaving(1)), "and none of its later loops begins"


def test_an_earlier_step_than_the_last_one_is_kept_when_it_has_just_been_saved(directory: Path) -> None:
    run = m1job.attach(keep=1)
    for step in (5, 2):
        path = run.save(step, lambda path: (path / "x").write_text("x"))
        assert path is not None
        assert path.is_dir()


def test_threads_and_forked_children_write_whole_records(directory: Path) -> None:
    run = m1job.attach()
    run.notice("begins")

    def says() -> None:
        for _ in range(100):
            run.notice("x" * 5000)

    threads = [threading.Thread(target=says) for _ in range(2)]
    child = os.fork()
    if not child:
        says()
        os._exit(0)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.waitpid(child, 0)[1] == 0
    assert sum(isinstance(record, Notice) for record in records(directory)) == 301


def test_a_record_that_somebody_was_killed_in_is_taken_back(directory: Path) -> None:
    with open(journal_path(directory, 1), "ab") as file:
        file.write(b"\x40\x00\x00\x00\x01\x02\x03\x04half of a rec")
    run = m1job.attach()
    run.notice("whole")
    assert [type(record) for record in records(directory)] == [Started, Notice]


def full_disk(_directory: Path) -> None:
    raise OSError(28, os.strerror(28))


def test_a_full_disk_ends_no_program_and_an_older_checkpoint_makes_room(directory: Path) -> None:
    run = m1job.attach(keep=5)
    for step in (1, 2, 3):
        run.step = step
        assert run.save(step, lambda path: (path / "x").write_text("x"))
    tried = []

    def fits_when_one_is_left(path: Path) -> None:
        tried.append(sorted(each.name for each in path.parent.glob("step-*")))
        if len(tried[-1]) > 1:
            full_disk(path)
        (path / "x").write_text("x")

    assert run.save(4, fits_when_one_is_left)
    assert tried == [["step-00000001", "step-00000002", "step-00000003"], ["step-00000003"]]
    assert run.save(5, full_disk) is None
    assert [path.name for path in sorted((directory / "checkpoints").iterdir())] == ["step-00000004"]
    assert any(isinstance(record, Notice) and "disk is full" in record.message for record in records(directory))


def test_a_program_that_is_to_leave_stays_while_its_checkpoint_does_not_fit(directory: Path) -> None:
    run = m1job.attach()
    done = []
    for step in run.steps(100):
        done.append(step)
        if step == 2:
            write_desired(directory, Desired(Want.YIELD))
        if run.wants_checkpoint:
            run.save(step, full_disk if step < 5 else lambda path: (path / "x").write_text("x"))
    assert done == [1, 2, 3, 4, 5]
    assert isinstance(records(directory)[-1], Leaving)
    assert any(isinstance(record, Joined) for record in records(directory))


@pytest.mark.parametrize(
    ("fill", "problem"),
    [
        (lambda path: None, "has no files"),
        (lambda path: (path / "manifest.json").write_text(""), "m1job's to write"),
        (lambda path: (path / "link").symlink_to("/etc/passwd"), "no plain file"),
        (lambda path: os.mkfifo(path / "pipe"), "no plain file"),
    ],
)
def test_what_is_no_checkpoint_is_refused_and_nothing_remains(directory: Path, fill: object, problem: str) -> None:
    run = m1job.attach()
    with pytest.raises(ValueError, match=problem):
        run.save(1, fill)  # type: ignore[arg-type]
    assert not list((directory / "checkpoints").iterdir())


def test_nobody_else_reads_a_checkpoint(directory: Path) -> None:
    path = m1job.attach().save(1, lambda path: (path / "x").write_text("x"))
    assert path is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
