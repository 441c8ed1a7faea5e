"""How a training process starts and how it fails: in one sentence, with the right word, and nothing changed."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from m1.errors import Reason
from m1.jobdir import LOCK_FD, Want, checkpoints_path, data_version_path, lock_path, read_spec, write_spec
from m1.journal import Approximate, CheckpointWritten, Exited, Metrics, Notice, journal_path
from training_process import Job, assert_same, ended, exited, is_a, trained


def m1train(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "m1train", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


def test_a_job_that_is_being_trained_is_not_trained_twice(job: Job) -> None:
    with open(lock_path(job.directory), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = m1train("run", str(job.directory))
    assert refused.returncode == 5
    assert "is trained by another process" in refused.stderr
    assert not journal_path(job.directory, 1).exists()


def test_an_inherited_lock_is_kept_to_the_end_and_passed_on_to_no_child(job: Job) -> None:
    with open(lock_path(job.directory), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "-m", "m1train", "run", str(job.directory), "--attempt", "1"]
        actions = [(os.POSIX_SPAWN_DUP2, lock.fileno(), LOCK_FD)]
        pid = os.posix_spawn(sys.executable, command, os.environ, file_actions=actions)
    # The daemon's descriptor is closed now: the child alone holds the lock.
    with open(lock_path(job.directory), "rb") as mine:
        with pytest.raises(BlockingIOError):
            fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert os.waitpid(pid, 0)[1] == 0
        fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_an_attempt_is_made_once(job: Job) -> None:
    journal_path(job.directory, 3).touch()
    refused = m1train("run", str(job.directory), "--attempt", "3")
    assert refused.returncode == 5
    assert "attempt 3 of this job has been made" in refused.stderr


def test_a_directory_that_is_no_jobs_is_refused(tmp_path: Path) -> None:
    refused = m1train("run", str(tmp_path))
    assert refused.returncode == 2
    assert "is not a job's directory" in refused.stderr


def test_a_loss_that_is_not_finite_ends_the_training_before_the_step(
    tmp_path: Path, images: Path, data_root: Path
) -> None:
    job = Job.new(tmp_path / "job", str(images), data_root, lr=10, clip_norm=0, epochs=100, weight_decay=10)
    with job.started() as attempt:
        attempt.wait_for(is_a(Exited))
        records = attempt.finish()
    end = exited(records)
    assert (end.outcome, end.code) == ("failed", Reason.NOT_FINITE)
    last = max(r.step for r in records if isinstance(r, Metrics))
    assert f"step {last + 1}" in end.message or f"step {last}" in end.message
    assert end.step == last, "the steps done: the same ones whenever it is tried again"
    assert attempt.process.returncode == 1


def test_bad_data_ends_the_job_and_names_the_file(tmp_path: Path, own_images: Path, data_root: Path) -> None:
    broken = own_images / "train" / "3" / "1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    end = exited(Job.new(tmp_path / "job", str(own_images), data_root).run())
    assert (end.outcome, end.code) == ("failed", Reason.BAD_DATA)
    assert str(broken) in end.message


def test_a_setting_out_of_bounds_ends_the_job(tmp_path: Path, images: Path, data_root: Path) -> None:
    end = exited(Job.new(tmp_path / "job", str(images), data_root, lr=-1).run())
    assert (end.outcome, end.code) == ("failed", Reason.INVALID_SETTING)


def test_torch_not_installed_is_said_in_one_sentence(job: Job, tmp_path: Path) -> None:
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "torch.py").write_text("raise ImportError('no torch here')\n")
    answer = m1train("run", str(job.directory), "--attempt", "1", PYTHONPATH=str(tmp_path / "shadow"))
    job.attempt = 1
    end = exited(job.journals())
    assert (end.outcome, end.code, end.hint) == ("failed", Reason.TORCH_MISSING, "pip install 'm1d[daemon]'")
    assert answer.returncode == 1


def test_a_device_that_is_not_there_is_said_with_those_that_are(job: Job) -> None:
    spec = json.loads((job.directory / "spec.json").read_text())
    spec["profile"]["device"] = "mps" if sys.platform != "darwin" else "cuda"
    (job.directory / "spec.json").write_text(json.dumps(spec))
    end = exited(job.run())
    assert end.code == Reason.UNSUPPORTED
    assert "there is cpu" in end.hint


def test_a_checkpoint_that_cannot_be_written_is_said_and_the_training_goes_on(job: Job) -> None:
    with job.started() as attempt:
        attempt.wait_for(trained(1))
        directory = checkpoints_path(job.directory)
        directory.rename(directory.with_name("elsewhere"))  # what a lost volume looks like
        job.want(Want.RUN, checkpoint=1)
        notice = attempt.wait_for(lambda record: isinstance(record, Notice) and record.severity != "info")
        attempt.wait_for(trained(6))
        assert isinstance(notice, Notice)
        assert notice.severity == "error"
        assert "the training goes on without it" in notice.message
        end = exited(attempt.finish())
    assert end.outcome == "failed", "the last checkpoint must be durable"
    assert "the checkpoint of step 10 could not be written" in end.message


def test_a_resume_under_another_profile_is_called_approximate(job: Job) -> None:
    with job.started() as attempt:
        attempt.wait_for(trained(1))
        job.want(Want.YIELD)
        attempt.finish()
    spec = json.loads((job.directory / "spec.json").read_text())
    spec["profile"]["memory_format"] = "contiguous"
    (job.directory / "spec.json").write_text(json.dumps(spec))
    job.want(Want.RUN)
    records = job.run()
    assert [r for r in records if isinstance(r, Approximate)] == [
        Approximate(["memory_format was channels_last, is contiguous"])
    ]
    written = [r for r in records if isinstance(r, CheckpointWritten)]
    assert [r.approximate for r in written] == [False, *[True] * (len(written) - 1)], "the one it began with was exact"
    assert ended(records, "succeeded")


def test_batches_that_are_prepared_ahead_train_the_same_weights(job: Job, undisturbed: Job) -> None:
    spec = json.loads((job.directory / "spec.json").read_text())
    spec["profile"]["prefetch"] = 3
    (job.directory / "spec.json").write_text(json.dumps(spec))
    with job.started() as attempt:
        attempt.wait_for(trained(3))
        job.want(Want.YIELD)
        attempt.finish()
    job.want(Want.RUN)
    assert not [r for r in job.run() if isinstance(r, Approximate)]
    assert_same(job, undisturbed, 10)


def test_a_checkpoint_of_other_classes_is_refused(job: Job, own_images: Path) -> None:
    with job.started() as attempt:
        attempt.wait_for(trained(1))
        job.want(Want.YIELD)
        attempt.finish()
    for split in ("train", "test"):  # nine classes
        for file in (own_images / split / "9").iterdir():
            file.unlink()
        (own_images / split / "9").rmdir()
    spec = read_spec(job.directory)
    # As of another job: one of its own would go on with the version of the data that it began with.
    write_spec(job.directory, type(spec)(**{**vars(spec), "job_id": "j2", "data": str(own_images)}))
    data_version_path(job.directory).unlink()
    job.want(Want.RUN)
    end = exited(job.run())
    assert end.code == Reason.BAD_CHECKPOINT
    assert 'label has 9 classes, without "9", and had 10' in end.message


def test_training_without_a_daemon_goes_on_where_it_was_left(tmp_path: Path, images: Path) -> None:
    arguments = ["cifar", "--data", str(images), "--epochs", "1", "--set", "batch_size=64", "--out"]
    home = str(tmp_path / "home")
    first = m1train(*arguments, str(tmp_path / "out"), M1D_HOME=home)
    assert first.returncode == 0, first.stderr
    assert "test/accuracy" in first.stdout
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "home" / "data").stat().st_mode & 0o777 == 0o700
    again = m1train(*arguments, str(tmp_path / "out"), M1D_HOME=home)
    assert "going on from step 2 of 2" in again.stderr
    assert again.stdout == first.stdout
    other = m1train(*arguments, str(tmp_path / "out"), "--set", "seed=1", M1D_HOME=home)
    assert other.returncode == 2
    assert "holds another job" in other.stderr


def test_training_without_a_daemon_fails_in_one_sentence_and_leaves_nothing(tmp_path: Path, own_images: Path) -> None:
    (tmp_path / "tmp").mkdir()
    places = {"M1D_HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
    unknown = m1train("cifar", "--data", "digit", **places)
    assert (unknown.returncode, unknown.stderr) == (
        3,
        'm1train: there is no dataset "digit": did you mean "digits"?\n',
    )
    broken = own_images / "train" / "3" / "1.png"
    broken.write_bytes(b"")
    bad = m1train("cifar", "--data", str(own_images), **places)
    assert bad.returncode == 2
    assert bad.stderr.splitlines()[-1] == (
        f'm1train: "{broken}" is empty (0 bytes): put the whole picture there, or take the file away'
    )
    assert not list((tmp_path / "tmp").glob("m1train-*"))


def test_a_directory_of_something_else_is_not_trained_in(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to_mother.txt").touch()
    for out in (tmp_path / "letters", tmp_path / "letters" / "to_mother.txt"):
        answer = m1train("cifar", "--data", "digits", "--out", str(out), M1D_HOME=str(tmp_path / "home"))
        assert answer.returncode in (2, 4)
        assert answer.stderr.startswith(f'm1train: "{out}" ')
        assert answer.stderr.endswith(": choose another --out\n") or "--out or M1D_HOME" in answer.stderr
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["to_mother.txt"]
