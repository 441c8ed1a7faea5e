"""The daemon under a service manager: what it says, when, and how it ends."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

PATIENCE_S = 120.0


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short: a socket's path has to fit into about a hundred bytes."""
    path = Path(tempfile.mkdtemp(prefix="m1-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_systemd_hears_ready_then_alive_then_stopping_and_sees_a_clean_end(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(directory / "notify"))
        manager.settimeout(PATIENCE_S)
        daemon = subprocess.Popen(
            [sys.executable, "-P", "-m", "m1d", "serve", "--home", str(directory / "home"), "--quiet"],
            env={
                "PATH": os.environ["PATH"],
                "NOTIFY_SOCKET": str(directory / "notify"),
                "WATCHDOG_USEC": "200000",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            assert manager.recv(100) == b"READY=1"
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(directory / "home" / "m1d.sock"))  # ready means ready
            assert [manager.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            daemon.send_signal(signal.SIGTERM)
            message = manager.recv(100)
            while message == b"WATCHDOG=1":
                message = manager.recv(100)
            assert message == b"STOPPING=1"
            output, _ = daemon.communicate(timeout=PATIENCE_S)
        finally:
            daemon.kill()
            daemon.wait()

    # A clean end is not restarted (SuccessfulExit, on-failure), and --quiet leaves launchd.err empty.
    assert (daemon.returncode, output) == (0, b"")
    assert "stopped" in (directory / "home" / "m1d.log").read_text()
