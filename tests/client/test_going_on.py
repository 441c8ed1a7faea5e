"""A stream goes on across daemons, from where it was, for a bounded time."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from m1.errors import M1Error, Reason
from m1.paths import Home, home_from_environment
from m1.v1.system_pb2 import GetSystemInfoRequest as SystemInfo
from m1ctl.sdk.connection import Connection, go_on

GONE = M1Error(Reason.SHUTTING_DOWN, "the daemon stops")


class Link:
    """A connection whose daemon has answered, and comes back or not."""

    def __init__(self, *, comes_back: bool = True, was_answered: bool = True) -> None:
        self.home: Home = home_from_environment("/tmp/x")
        self.was_answered = was_answered
        self.comes_back = comes_back
        self.waits: list[float] = []

    def wait_until_ready(self, timeout_s: float) -> bool:
        self.waits.append(timeout_s)
        return self.comes_back


def counting(*breaks: int, error: M1Error = GONE) -> Callable[[float | None], Iterator[int]]:
    """A stream of 0 to 9 that breaks once before each of these, and is opened where it ended."""
    left = list(breaks)
    seen = -1

    def open_stream(_: float | None) -> Iterator[int]:
        nonlocal seen
        for number in range(seen + 1, 10):
            if left and number == left[0]:
                left.pop(0)
                raise error
            seen = number
            yield number

    return open_stream


def collect(link: Link, stream: Callable[[float | None], Iterator[int]], said: list[str] | None = None) -> list[int]:
    tell = None if said is None else said.append
    return list(go_on(cast("Connection", link), stream, give_up_s=30.0, tell=tell))


def test_a_stream_that_breaks_goes_on_and_says_so() -> None:
    said: list[str] = []
    assert collect(Link(), counting(3, 7), said) == list(range(10))
    away, back = "lost connection to the daemon; retrying for 30 s", "reconnected"
    assert said == [away, back, away, back]


def test_a_daemon_that_is_still_leaving_is_one_break() -> None:
    said: list[str] = []
    assert collect(Link(), counting(3, 3, 3), said) == list(range(10))
    assert len(said) == 2


def test_a_daemon_that_does_not_come_back_is_given_up() -> None:
    link = Link(comes_back=False)
    with pytest.raises(M1Error, match="no daemon is running at /tmp/x/"):
        collect(link, counting(3))
    assert link.waits == [pytest.approx(30.0, abs=5.0)]


def test_a_daemon_that_never_was_there_is_not_waited_for() -> None:
    link = Link(was_answered=False)
    with pytest.raises(M1Error, match="the daemon stops"):
        collect(link, counting(0))
    assert link.waits == []


def test_another_error_ends_the_stream() -> None:
    link = Link()
    with pytest.raises(M1Error, match="no such revision"):
        collect(link, counting(3, error=M1Error(Reason.CURSOR_OUT_OF_RANGE, "no such revision")))
    assert link.waits == []


def test_ctrl_c_comes_when_a_stream_has_been_opened_whole(tmp_path: Path) -> None:
    opened = []

    def open_call(*_: object, **__: object) -> Iterator[int]:
        signal.raise_signal(signal.SIGINT)
        opened.append(True)
        return iter(())

    connection = Connection(home_from_environment(str(tmp_path)), timeout_s=1.0)
    with pytest.raises(KeyboardInterrupt):
        next(connection.stream(open_call, SystemInfo()))
    assert opened == [True]
    connection.close()
