"""One channel to the daemon: calls with a deadline, streams, and every failure as an M1Error.

Nothing above this module sees a grpc.RpcError, and nothing below it knows what a job is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf.message import Message
from m1.endpoint import CHANNEL_OPTIONS, MAX_MESSAGE_BYTES, socket_address
from m1.errors import M1Error, Reason, from_rpc_error
from m1.paths import Home, check_socket_path

from m1ctl.sdk.interrupts import uninterrupted

# A daemon that was restarted should be found soon: gRPC's own backoff starts at a second and grows to two minutes.
_RECONNECT_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Despite its name how long one attempt may take; a daemon on a busy machine is slow to shake hands.
    ("grpc.min_reconnect_backoff_ms", 10_000),
    # Channels of one process share their connections otherwise, and a new one begins with a dead daemon's.
    ("grpc.use_local_subchannel_pool", 1),
]
GIVE_UP_S = 30.0
"""How long a watch waits for a daemon that went away."""
_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.05, 1.0
_GONE = frozenset({Reason.UNREACHABLE, Reason.SHUTTING_DOWN})


def is_gone(error: M1Error) -> bool:
    """Return True if the daemon left, so that the same call may succeed with the next one."""
    return error.reason in _GONE


class Connection:
    """A synchronous channel to the daemon of one home.

    `timeout_s` bounds every unary call that does not bring its own; streams are unbounded unless they bring one.
    """

    def __init__(self, home: Home, timeout_s: float) -> None:
        check_socket_path(home)
        self.home = home
        self.timeout_s = timeout_s
        self.channel = grpc.insecure_channel(socket_address(home), options=CHANNEL_OPTIONS + _RECONNECT_OPTIONS)
        self.was_answered = False
        """True once the daemon has answered: before that, "no daemon" is the likelier reason than "restarts"."""

    def close(self) -> None:
        """End the channel and every call on it."""
        self.channel.close()

    def unary(
        self,
        method: Callable[..., Any],
        request: Message,
        timeout_s: float | None = None,
        *,
        bounded: bool = True,
        wait_for_ready: bool = False,
    ) -> Any:
        """Return the answer to one call.

        Args:
            method: The stub's method.
            request: What it takes.
            timeout_s: The deadline; None: the connection's own.
            bounded: False: no deadline unless timeout_s is given.
            wait_for_ready: Wait for the daemon to come, inside the deadline.

        Raises:
            M1Error: what the daemon answered, UNREACHABLE, or TIMED_OUT.
        """
        deadline_s = self.timeout_s if timeout_s is None and bounded else timeout_s
        try:
            response = method(request, timeout=deadline_s, wait_for_ready=wait_for_ready)
        except grpc.RpcError as error:
            raise self.explain(error, deadline_s) from error
        self.was_answered = True
        return response

    def stream(self, method: Callable[..., Any], request: Message, timeout_s: float | None = None) -> Iterator[Any]:
        """Yield the answers of a streaming call. Leaving the loop ends the call.

        Raises:
            M1Error: as `unary`.
        """
        # Ctrl-C in the middle of this would leave a channel without its thread: it hangs, and so does its end.
        with uninterrupted():
            call = method(request, timeout=timeout_s)
        try:
            for response in call:
                self.was_answered = True
                yield response
        except grpc.RpcError as error:
            raise self.explain(error, timeout_s) from error
        finally:
            call.cancel()

    def wait_until_ready(self, timeout_s: float) -> bool:
        """Return True if a daemon answers at the socket within the time.

        By a call, which connects again whenever the channel has become idle; a channel's ready future does not.
        """
        from m1.v1.system_pb2 import GetSystemInfoRequest
        from m1.v1.system_pb2_grpc import SystemServiceStub

        ask = SystemServiceStub(self.channel).GetSystemInfo
        end = time.monotonic() + timeout_s
        while (left_s := end - time.monotonic()) > 0:
            try:
                self.unary(ask, GetSystemInfoRequest(), left_s, wait_for_ready=True)
            except M1Error as error:
                if not is_gone(error) and error.reason is not Reason.TIMED_OUT:
                    raise
            else:
                return True
        return False

    def wait_until_gone(self, timeout_s: float) -> bool:
        """Return True if the daemon that answers at the socket stops to within the time."""
        from m1.v1.system_pb2 import GetSystemInfoRequest
        from m1.v1.system_pb2_grpc import SystemServiceStub

        ask = SystemServiceStub(self.channel).GetSystemInfo
        end, backoff_s = time.monotonic() + timeout_s, _FIRST_BACKOFF_S
        while (left_s := end - time.monotonic()) > 0:
            try:
                self.unary(ask, GetSystemInfoRequest(), left_s)
            except M1Error as error:
                if is_gone(error):  # what was under way when it left is answered otherwise
                    return True
            time.sleep(min(backoff_s, left_s))  # nothing here tells of the end of a process elsewhere
            backoff_s = min(2 * backoff_s, _LAST_BACKOFF_S)
        return False

    def explain(self, error: grpc.RpcError, deadline_s: float | None) -> M1Error:
        """Return the daemon's own error, or gRPC's as a sentence: who did not answer, and what to do."""
        told = from_rpc_error(error)
        if told.hint or told.field:
            return told
        if told.reason is Reason.UNREACHABLE:
            return unreachable(self.home, told.message)
        if told.reason is Reason.TIMED_OUT:
            within = f" within {deadline_s:g} s" if deadline_s is not None else " in time"
            return M1Error(
                Reason.TIMED_OUT,
                f"the daemon at {self.home.socket} did not answer{within}",
                "allow more time with --timeout",
            )
        if told.reason is Reason.MESSAGE_TOO_LARGE:
            return M1Error(
                Reason.MESSAGE_TOO_LARGE,
                f"the message is too large ({told.message})",
                f"the limit is {MAX_MESSAGE_BYTES} bytes",
            )
        return told


def unreachable(home: Home, detail: str = "") -> M1Error:
    """Return the error for a socket that nobody answers at, or that belongs to somebody else."""
    if "Permission denied" in detail:
        return M1Error(
            Reason.NOT_ALLOWED,
            f'the home "{home.root}" belongs to another user',
            "only its owner can reach its daemon; choose another with --home or M1D_HOME",
            field="home",
            value=str(home.root),
        )
    return M1Error(
        Reason.UNREACHABLE,
        f"no daemon is running at {home.socket}",
        "start one with m1ctl daemon start",
    )


def go_on(
    connection: Connection,
    open_stream: Callable[[float | None], Iterator[Any]],
    *,
    give_up_s: float,
    timeout_s: float | None = None,
    tell: Callable[[str], None] | None = None,
) -> Iterator[Any]:
    """Yield from a stream that is opened again when the daemon goes and comes back.

    `open_stream` must open it where the last answer ended. The wait for the daemon is bounded by `give_up_s` from each
    break, and everything together by `timeout_s`. `tell` gets a sentence when the daemon goes and one when it is back.

    Raises:
        M1Error: UNREACHABLE when the daemon never answered or did not come back, TIMED_OUT, and what it answered.
    """
    say = tell or (lambda _: None)
    end = math.inf if timeout_s is None else time.monotonic() + timeout_s
    broken: float | None = None
    backoff_s = _FIRST_BACKOFF_S
    while True:
        opened = time.monotonic()
        try:
            for response in open_stream(None if timeout_s is None else max(0.0, end - opened)):
                if broken is not None:
                    say("reconnected")
                broken, backoff_s = None, _FIRST_BACKOFF_S
                yield response
        except M1Error as error:
            if not is_gone(error) or not connection.was_answered:
                raise
        else:
            return
        now = time.monotonic()
        if broken is None:
            say(f"lost connection to the daemon; retrying for {give_up_s:g} s")
        if broken is None or now - opened > _LAST_BACKOFF_S:  # a stream that lived a while was no failed attempt
            broken = now
        if not connection.wait_until_ready(min(broken + give_up_s, end) - now):
            raise unreachable(connection.home)
        # A daemon that is leaving still answers for a moment: don't knock in a tight loop until it is gone.
        time.sleep(backoff_s)
        backoff_s = min(2 * backoff_s, _LAST_BACKOFF_S)
