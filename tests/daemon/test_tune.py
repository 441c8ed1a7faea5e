"""m1ctl tune, from the command to the profile that the next submit takes; most of it is given, so that it is short."""

from __future__ import annotations

import json
import signal
import stat
from importlib.resources import files
from pathlib import Path

import pytest
from harness import PATIENCE_S, RunningDaemon, read_until
from m1.errors import ExitCode, M1Error, Reason
from m1.jobdir import Profile, read_spec
from m1.journal import Findings
from m1.paths import Home
from m1.spec import JobSpec
from m1.v1 import job_pb2
from m1ctl.sdk.states import SUCCEEDED
from m1d.catalogue.profiles import Profiles, current_conditions
from m1d.jobs.job import Job
from m1d.machine.topology import read_topology

GIVEN = {"threads": "1", "dtype": "float32", "fused": "on", "prefetch": "0", "nnpack": "on", "compile": "off"}
BRIEFLY = ["--set", "batch_size=4", *(word for k, v in GIVEN.items() for word in ("--profile", f"{k}={v}"))]


def test_a_tuning_measures_shows_and_stores_and_submit_uses_it_and_says_so(daemon: RunningDaemon) -> None:
    told = daemon.m1ctl("tune", "cifar", *BRIEFLY)
    assert told.returncode == ExitCode.OK, told.stderr
    header, *rows = told.stdout.splitlines()
    assert header.split()[:2] == ["MEASURED", "VALUE"]
    titles = " ".join(rows)
    for words in ("memory_format contiguous", "dtype float32", "as given", "images/s with the default"):
        assert words in titles
    assert "part 1 of" in told.stderr
    assert "saved; m1ctl submit cifar will now use" in told.stderr

    path = daemon.home / "profiles" / "cifar.json"
    stored = json.loads(path.read_text())
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {"torch", "power", "machine"} <= set(stored["conditions"])
    (tuning,) = daemon.client.list_jobs()
    assert (tuning.state, tuning.name, tuning.spec.data) == (SUCCEEDED, "tune-cifar-1", "")
    assert tuning.spec.purpose == job_pb2.PURPOSE_TUNE
    assert {finding["key"] for finding in stored["findings"]} == {finding.key for finding in tuning.findings}
    assert "images/s with the choice" in daemon.m1ctl("show", tuning.id).stdout

    told = daemon.m1ctl("submit", "cifar", "--data", "few", "--epochs", "1", "--profile", "threads=1")
    assert "profile: m1ctl tune on 20" in told.stderr
    assert "(j1): " in told.stderr
    assert told.stdout.split() == ["j2", "cifar-2"]
    profile = daemon.client.get("j2").spec.profile
    assert profile.memory_format == stored["profile"]["memory_format"]
    assert profile.origin.endswith("; threads as given")

    # Whoever submitted before keeps the profile that the job was stored with.
    before = daemon.client.submit("cifar", data="few", request_id="again").spec.profile
    stored["profile"]["prefetch"] = 2
    path.write_text(json.dumps(stored))
    assert daemon.client.submit("cifar", data="few").spec.profile.prefetch == 2
    assert daemon.client.submit("cifar", data="few", request_id="again").spec.profile == before

    # Damaged: set aside, reported, and the machine's own serves.
    path.write_text("{")
    told = daemon.m1ctl("submit", "cifar", "--data", "few")
    assert told.returncode == ExitCode.OK
    assert told.stderr.count("refresh the profile with m1ctl tune cifar: ") == 1
    assert not path.exists()
    assert path.with_name("cifar.json.damaged").read_text() == "{"
    assert "is damaged" in daemon.log()


def test_ctrl_c_leaves_a_tuning_in_the_queue_and_its_cancellation_is_an_error(held_daemon: RunningDaemon) -> None:
    tuning = held_daemon.begin_m1ctl("tune", "cifar", *BRIEFLY, "--name", "left")
    read_until(tuning.stderr, "queued")
    tuning.send_signal(signal.SIGINT)
    data, told = tuning.communicate(timeout=PATIENCE_S)
    assert (tuning.returncode, data) == (ExitCode.INTERRUPTED, "")
    assert "detached; j2 keeps running" in told
    assert held_daemon.client.get("left").state == job_pb2.JOB_STATE_QUEUED

    tuning = held_daemon.begin_m1ctl("tune", "cifar", *BRIEFLY, "--name", "cancelled")
    read_until(tuning.stderr, "queued")
    held_daemon.client.cancel("cancelled")
    _, told = tuning.communicate(timeout=PATIENCE_S)
    assert tuning.returncode == ExitCode.ERROR
    assert "cancelled" in told


def test_a_tuning_that_fails_ends_with_the_code_of_a_failed_job(daemon: RunningDaemon, tmp_path: Path) -> None:
    template = files("m1ctl").joinpath("recipe_template.txt").read_text()
    (tmp_path / "mine.py").write_text(template + "\n    def rate(self, at):\n        return 1 / (3 - at.step)\n")
    told = daemon.m1ctl("tune", "./mine.py", *BRIEFLY, cwd=tmp_path)
    assert told.returncode == ExitCode.JOB_FAILED
    assert "ZeroDivisionError" in told.stderr
    assert "stored" not in told.stderr
    assert not (daemon.home / "profiles").exists()


def test_a_job_that_goes_on_keeps_the_profile_that_it_began_with(held_daemon: RunningDaemon) -> None:
    client = held_daemon.client
    before = client.get("holder").spec.profile
    tuning = Job(number=9, name="tune", spec=JobSpec(kind="tuning", recipe="cifar"), position=0, create_time=1.0)
    found = Findings([], Profile(dtype="bfloat16", memory_format="contiguous"), current_conditions())
    Profiles(Home(held_daemon.home).profiles, read_topology(), current_conditions).keep(tuning, found, 1.0)
    assert client.submit("cifar", data="few", validate_only=True).spec.profile.dtype == "bfloat16"

    client.wait(client.pause("holder"), until={job_pb2.JOB_STATE_PAUSED})
    held_daemon.kill()
    held_daemon.start()
    client = held_daemon.client
    job = client.wait(client.resume("holder"), until={job_pb2.JOB_STATE_RUNNING})
    assert job.attempt == 2
    assert job.spec.profile == before
    assert not job.approximate
    assert read_spec(Home(held_daemon.home).job(job.id)).profile.dtype == "float32"


@pytest.mark.parametrize(
    ("asked", "field", "words"),
    [
        ({"recipe": "stress"}, "spec.recipe", "nothing to tune"),
        ({"recipe": "cifar", "data": "few"}, "spec.data", "random samples"),
    ],
)
def test_what_cannot_be_tuned_is_refused(daemon: RunningDaemon, asked: dict[str, str], field: str, words: str) -> None:
    with pytest.raises(M1Error, match=words) as caught:
        daemon.client.submit(**asked, purpose=job_pb2.PURPOSE_TUNE)  # type: ignore[arg-type]
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_ARGUMENT, field)
    assert list(daemon.client.list_jobs()) == []


def test_a_tuning_makes_no_checkpoint_and_a_cancelled_one_stores_nothing(daemon: RunningDaemon) -> None:
    job = daemon.client.submit("cifar", purpose=job_pb2.PURPOSE_TUNE, settings={"batch_size": 4})
    daemon.client.wait(job, until={job_pb2.JOB_STATE_RUNNING}, timeout_s=PATIENCE_S)
    with pytest.raises(M1Error, match="a tuning makes none") as caught:
        daemon.client.create_checkpoint(job.id)
    assert caught.value.reason is Reason.WRONG_STATE
    daemon.client.cancel(job.id)
    assert daemon.client.wait(job.id, timeout_s=PATIENCE_S).state == job_pb2.JOB_STATE_CANCELLED
    assert not (daemon.home / "profiles").exists()
