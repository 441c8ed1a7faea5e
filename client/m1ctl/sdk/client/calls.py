"""Calls of the contract by their answer: the method, the request and the service follow from the message.

The contract names them alike: what answers with GetJobResponse is GetJob, and takes a GetJobRequest. So a verb of the
SDK is one line, typed by its answer, and no stub has to be imported or kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self, TypeVar

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from m1.errors import M1Error

from m1ctl.sdk.connection import Connection, is_gone
from m1ctl.sdk.requests import build

R = TypeVar("R", bound=Message)
PAGE_SIZE = 1000


class _Method(NamedTuple):
    request: type[Message]
    call: Callable[..., Any]
    """The stub's method."""


class Calls:
    """A connection with the calls of the contract. Close it, or use it in a `with`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._methods: dict[type[Message], _Method] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection and every call on it."""
        self.connection.close()

    def _method(self, response: type[Message]) -> _Method:
        known = self._methods.get(response)
        if known is None:
            answer = response.DESCRIPTOR
            (method,) = (
                method
                for service in answer.file.services_by_name.values()
                for method in service.methods
                if method.output_type is answer
            )
            request = GetMessageClass(method.input_type)  # type: ignore[arg-type]  # a descriptor of either kind
            path = f"/{method.containing_service.full_name}/{method.name}"
            channel = self.connection.channel
            open_call = channel.unary_stream if method.server_streaming else channel.unary_unary
            call = open_call(path, request.SerializeToString, response.FromString)
            known = self._methods[response] = _Method(request, call)
        return known

    def _ask(
        self,
        response: type[R],
        timeout_s: float | None = None,
        *,
        bounded: bool = True,
        persistent: bool = False,
        **fields: Any,
    ) -> R:
        """Return the answer to a call.

        Args:
            response: The class of the answer.
            timeout_s: The deadline; None: the connection's own.
            bounded: False: no deadline unless timeout_s is given.
            persistent: Ask the next daemon once more when this one goes away in the middle: for what may be repeated.
            fields: Those of the request; None leaves one out.
        """
        method = self._method(response)
        request = build(method.request, **fields)
        answer: R
        try:
            answer = self.connection.unary(method.call, request, timeout_s, bounded=bounded)
        except M1Error as error:
            if not (persistent and is_gone(error) and self.connection.was_answered):
                raise
            answer = self.connection.unary(method.call, request, timeout_s, bounded=bounded, wait_for_ready=True)
        return answer

    def _stream(self, response: type[R], timeout_s: float | None = None, **fields: Any) -> Iterator[R]:
        """Return the answers of a streaming call; without a deadline unless timeout_s is given."""
        method = self._method(response)
        return self.connection.stream(method.call, build(method.request, **fields), timeout_s)

    def _pages(self, response: type[R], **fields: Any) -> Iterator[R]:
        """Yield every page of a list."""
        token = ""
        while True:
            page: Any = self._ask(response, page_size=PAGE_SIZE, page_token=token, **fields)
            yield page
            token = page.next_page_token
            if not token:
                return
