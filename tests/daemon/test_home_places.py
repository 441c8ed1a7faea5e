"""Homes in odd places: names that an address reads otherwise, forwarded sockets, disks without modes or sockets."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from harness import PATIENCE_S, RunningDaemon, environment
from m1.endpoint import is_listened_to, listener_pid, socket_address
from m1.errors import ExitCode, M1Error, Reason
from m1.paths import Home, check_socket_path
from m1d.home.home import open_home


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory whose name is short enough for the sockets of homes in it."""
    with tempfile.TemporaryDirectory(prefix="m1-", dir="/tmp") as directory:
        yield Path(directory)


@contextmanager
def serving(home: Path) -> Iterator[RunningDaemon]:
    running = RunningDaemon(home)
    try:
        running.start()
        yield running
    finally:
        running.end()


def test_each_home_has_its_own_daemon_however_it_is_called(place: Path) -> None:
    names = ["A", "%41", "a#b?c é &=+;"]
    with serving(place / names[0]) as a, serving(place / names[1]) as b, serving(place / names[2]) as c:
        for running in (a, b, c):
            assert running.process is not None
            told = running.client.system_info()
            assert (told.pid, told.home) == (running.process.pid, str(running.home))
        assert b.m1ctl("daemon", "stop").returncode == 0
        assert b.process is not None
        assert b.process.wait(PATIENCE_S) == 0
        assert a.client.system_info().home == str(a.home)
        assert c.m1ctl("daemon", "stop").returncode == 0


def test_an_address_is_of_one_path_only() -> None:
    assert socket_address(Home(Path("/tmp/x/A"))) == "unix:/tmp/x/A/m1d.sock"
    assert socket_address(Home(Path("/tmp/x/%41"))) == "unix:/tmp/x/%2541/m1d.sock"
    with pytest.raises(M1Error, match="UTF-8"):
        check_socket_path(Home(Path(os.fsdecode(b"/tmp/\xff"))))


def is_closed(read_end: int) -> bool:
    """Wait for the end of a pipe that nobody writes to: nobody has its other end any more."""
    ready, _, _ = select.select([read_end], [], [], PATIENCE_S)
    return bool(ready) and os.read(read_end, 1) == b""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read_end, write_end = os.pipe()
    yield read_end, write_end
    os.close(read_end)


def test_a_daemon_in_the_background_keeps_no_open_file_of_whoever_started_it(
    place: Path, pipe: tuple[int, int]
) -> None:
    home, (read_end, write_end) = place / "h", pipe
    with (place / "locked").open("w") as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        command = [sys.executable, "-P", "-m", "m1ctl", "daemon", "start"]
        given = (write_end, locked.fileno())
        subprocess.run(command, check=True, capture_output=True, pass_fds=given, env=environment(home))
    os.close(write_end)
    try:
        with (place / "locked").open("w") as again:
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert is_closed(read_end)
    finally:
        RunningDaemon(home).m1ctl("daemon", "stop")


def test_a_daemon_in_the_foreground_closes_what_it_was_given(place: Path, pipe: tuple[int, int]) -> None:
    home, (read_end, write_end) = place / "h", pipe
    command = [sys.executable, "-P", "-m", "m1d", "serve", "--quiet", "--home", str(home)]
    with subprocess.Popen(command, pass_fds=[write_end], env=environment(home)) as process:
        os.close(write_end)
        try:
            assert is_closed(read_end)
            assert process.poll() is None
        finally:
            process.terminate()


# Sockets that are somebody else's


class Forwarding:
    """A listener at a home's socket, as `ssh -L` makes one: it passes on to another socket, or hangs up."""

    def __init__(self, at: Path, to: Path) -> None:
        self._to = to
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(at))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    far.connect(str(self._to))
                except OSError:
                    near.close()
                    continue
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    @staticmethod
    def _pass_on(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()


def test_a_daemon_behind_a_forwarded_socket_is_stopped_without_waiting_for_a_pid_of_another_machine(
    daemon: RunningDaemon, place: Path
) -> None:
    near = RunningDaemon(place)
    with closing(Forwarding(place / "m1d.sock", daemon.home / "m1d.sock")):
        assert daemon.process is not None
        assert listener_pid(Home(daemon.home)) == daemon.process.pid
        assert listener_pid(Home(place)) == os.getpid()
        stopped = near.m1ctl("daemon", "stop")
        assert stopped.returncode == 0, stopped.stderr
        assert "not of this machine" in stopped.stderr + stopped.stdout
        assert daemon.process.wait(PATIENCE_S) == 0

        # The daemon at its other end is down: a start here must not take the socket away.
        refused = near.m1ctl("daemon", "start")
        assert refused.returncode == ExitCode.ERROR
        assert refused.stderr.count("\n") == 1
        assert f'listens at "{place}/m1d.sock"' in refused.stderr
        assert is_listened_to(Home(place))


# Disks


def loose(path: Any, **options: Any) -> os.stat_result:
    """What a disk without modes says: everything is open to everybody."""
    info = os.lstat(path)
    return os.stat_result([info.st_mode | 0o055, *info[1:]])


class NoSockets(socket.socket):
    def bind(self, address: Any) -> None:
        raise OSError(95, os.strerror(95))


def test_a_disk_without_modes_is_said_to_be_one_and_gets_no_home(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m1d.home.home.os.stat", loose)
    home = Home(place / "new" / "home")
    with pytest.raises(M1Error) as caught:
        open_home(home)
    assert caught.value.reason is Reason.HOME_NOT_SAFE
    assert "keeps no modes" in str(caught.value)
    assert "chmod" not in str(caught.value)
    assert list(place.iterdir()) == []


def test_a_disk_without_sockets_is_said_to_be_one_and_gets_no_home(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m1d.home.home.socket.socket", NoSockets)
    with pytest.raises(M1Error, match="can hold no socket") as caught:
        open_home(Home(place / "new" / "home"))
    assert caught.value.reason is Reason.HOME_NOT_SAFE
    assert list(place.iterdir()) == []


def test_a_home_that_was_there_stays_when_it_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(place / "home")
    home.root.mkdir(mode=0o700)
    monkeypatch.setattr("m1d.home.home.socket.socket", NoSockets)
    with pytest.raises(M1Error):
        open_home(home)
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    assert list(home.root.iterdir()) == []
