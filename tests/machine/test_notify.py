"""What systemd hears, on a real datagram socket."""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from m1d.home.notify import READY, STOPPING, WATCHDOG, notify, watchdog_interval_s


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.settimeout(10)
        yield listener


def test_systemd_hears_that_the_daemon_is_ready_alive_and_stopping(tmp_path: Path, listener: socket.socket) -> None:
    path = tmp_path / "notify"
    listener.bind(str(path))

    for message in (READY, WATCHDOG, STOPPING):
        assert notify(message, {"NOTIFY_SOCKET": str(path)})
        assert listener.recv(100) == message.encode()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract sockets")
def test_an_abstract_socket_is_reached(listener: socket.socket) -> None:
    name = f"m1d-test-{os.getpid()}"
    listener.bind("\0" + name)

    assert notify(READY, {"NOTIFY_SOCKET": "@" + name})
    assert listener.recv(100) == b"READY=1"


def test_without_systemd_nothing_is_said() -> None:
    assert not notify(READY, {})
    assert not notify(READY, {"NOTIFY_SOCKET": ""})


def test_a_socket_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        notify(READY, {"NOTIFY_SOCKET": str(tmp_path / "gone")})


@pytest.mark.parametrize(
    ("environment", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "77"}, 15),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_its_limit(environment: dict[str, str], interval_s: float | None) -> None:
    assert watchdog_interval_s(environment, pid=77) == interval_s
