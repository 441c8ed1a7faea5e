"""The home and the process: who may serve where, and what is refused before anything is touched."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from harness import PATIENCE_S, RunningDaemon, environment
from m1.errors import ExitCode


def serve(home: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """`m1d serve`, for a start that must be refused."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "m1d", "serve", "--home", str(home)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env=environment(home) | extra,
    )


def one_sentence(refusal: subprocess.CompletedProcess[str]) -> str:
    """What it said: one line that begins with its name."""
    assert refusal.stdout == ""
    lines = refusal.stderr.splitlines()
    assert len(lines) == 1, refusal.stderr
    assert lines[0].startswith("m1d: ")
    return lines[0]


def test_the_home_and_everything_in_it_is_the_owner_s_alone(daemon: RunningDaemon) -> None:
    for path in [daemon.home, *daemon.home.iterdir()]:
        if path.name != "data":  # copied in by the test
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_second_daemon_on_the_same_home_is_refused_and_the_first_one_goes_on(daemon: RunningDaemon) -> None:
    refusal = serve(daemon.home)
    assert refusal.returncode == ExitCode.WRONG_STATE
    assert daemon.process is not None
    assert str(daemon.process.pid) in one_sentence(refusal)
    assert daemon.client.system_info().pid == daemon.process.pid


def test_a_home_that_is_open_to_others_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    home = tmp_path / "h"
    home.mkdir(mode=0o755)
    refusal = serve(home)
    assert refusal.returncode == ExitCode.NOT_ALLOWED
    assert "chmod 700" in one_sentence(refusal)
    assert list(home.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_home_that_is_somebody_else_s_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "h"
    home.mkdir(mode=0o700)
    os.chown(home, 12345, -1)
    refusal = serve(home)
    assert refusal.returncode == ExitCode.NOT_ALLOWED
    assert "12345" in one_sentence(refusal)


def test_a_home_whose_socket_path_is_too_long_is_refused(tmp_path: Path) -> None:
    home = tmp_path / ("x" * 120)
    refusal = serve(home)
    assert refusal.returncode == ExitCode.USAGE
    assert "--home" in one_sentence(refusal)
    assert not home.exists()


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.write_text("mine")
    refusal = serve(home)
    assert refusal.returncode == ExitCode.NOT_ALLOWED
    one_sentence(refusal)
    assert home.read_text() == "mine"


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(quiet_daemon: RunningDaemon) -> None:
    database = quiet_daemon.home / "m1d.sqlite"
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    before = database.read_bytes()
    refusal = serve(quiet_daemon.home)
    assert refusal.returncode == ExitCode.ERROR
    assert "999" in one_sentence(refusal)
    assert database.read_bytes() == before


def test_a_database_that_is_not_one_is_refused_and_left_as_it_is(quiet_daemon: RunningDaemon) -> None:
    database = quiet_daemon.home / "m1d.sqlite"
    database.write_bytes(b"not a database" * 100)
    refusal = serve(quiet_daemon.home)
    assert refusal.returncode == ExitCode.ERROR
    one_sentence(refusal)
    assert database.read_bytes() == b"not a database" * 100


def test_a_dead_daemon_s_socket_does_not_stop_the_next_one(daemon: RunningDaemon) -> None:
    daemon.kill()
    assert (daemon.home / "m1d.sock").exists()
    daemon.start()
    assert daemon.stop() == 0
    assert not (daemon.home / "m1d.sock").exists()


def test_a_daemon_whose_machine_has_no_torch_refuses_the_job_and_says_how_to_get_it(
    quiet_daemon: RunningDaemon, tmp_path: Path
) -> None:
    # An installation without torch: the same packages, with torch and torchvision hidden.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "def find_spec(name, package=None):\n"
        "    return None if name in ('torch', 'torchvision') else find(name, package)\n"
        "importlib.util.find_spec = find_spec\n"
    )
    quiet_daemon.start(PYTHONPATH=str(tmp_path))
    refusal = quiet_daemon.m1ctl("submit", "cifar", "--data", "few")
    assert refusal.returncode == ExitCode.ERROR
    assert "pip install 'm1d[daemon]'" in refusal.stderr
    assert list(quiet_daemon.client.list_jobs()) == []


def test_health_and_reflection_are_served(daemon: RunningDaemon) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    channel = daemon.client.connection.channel
    services = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    ours = {f"m1.v1.{name}Service" for name in ("Job", "Checkpoint", "Event", "Metric", "Recipe", "Dataset", "System")}
    assert ours <= services
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ["", *ours]:
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE_S)  # type: ignore[attr-defined]
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_the_daemon_listens_on_no_network(held_daemon: RunningDaemon) -> None:
    assert held_daemon.process is not None
    for pid in (held_daemon.process.pid, held_daemon.client.get("holder").pid):
        assert psutil.Process(pid).net_connections(kind="inet") == []
