"""Errors on their way out: the domain's own with their details, any other as INTERNAL with a trace in the log."""

from __future__ import annotations

import errno
import inspect
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, message  # noqa: F401 - m1.errors needs it later, when it may be gone
from google.rpc import error_details_pb2, status_pb2  # noqa: F401
from grpc import aio
from m1.errors import M1Error, Reason, to_status

from m1d.store import StoreDamagedError, StoreReplacedError
from m1d.store.damage import way_out

_log = logging.getLogger(__name__)


class ErrorInterceptor(aio.ServerInterceptor):
    """Turns what a servicer raises into a status."""

    def __init__(self, database: Path) -> None:
        self._database = database

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the method that was called."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            return handler
        parse, serialize = handler.request_deserializer, handler.response_serializer
        # The request is parsed inside, so that a malformed one is an error like any other: health and reflection, too.
        if handler.unary_unary or not inspect.isasyncgenfunction(handler.unary_stream or handler.stream_stream):
            # One that answers by its context, as the health service's Watch, gives nothing.
            call = _unary(handler.unary_unary or handler.unary_stream, parse, method, self._database)
            make = grpc.unary_unary_rpc_method_handler
            return (make if handler.unary_unary else grpc.unary_stream_rpc_method_handler)(call, None, serialize)
        if handler.unary_stream:
            stream = _stream(handler.unary_stream, parse, method, self._database)
            return grpc.unary_stream_rpc_method_handler(stream, None, serialize)
        stream = _stream(handler.stream_stream, partial(_each, parse), method, self._database)
        return grpc.stream_stream_rpc_method_handler(stream, None, serialize)


def _unary(
    behaviour: Callable[[Any, Any], Awaitable[Any]], parse: Callable[[bytes], Any], method: str, database: Path
) -> Any:
    async def call(raw: bytes, context: aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await behaviour(_parsed(parse, raw, method), context)
        except M1Error as error:
            await _abort(context, error)
        except aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - the call fails, the daemon does not
            await _abort(context, _unexpected(method, error, database))

    return call


def _stream(
    behaviour: Callable[[Any, Any], AsyncIterator[Any]], parse: Callable[[bytes], Any], method: str, database: Path
) -> Any:
    async def call(raw: Any, context: aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        try:
            async for response in behaviour(_parsed(parse, raw, method), context):
                yield response
        except M1Error as error:
            await _abort(context, error)
        except aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - the call fails, the daemon does not
            if context.done():  # the caller has gone; what it did not wait for cannot be written
                return
            if isinstance(error, message.DecodeError):  # of a stream's later request
                await _abort(context, _malformed(method, error))
            await _abort(context, _unexpected(method, error, database))

    return call


def _parsed(parse: Callable[[bytes], Any], raw: bytes, method: str) -> Any:
    try:
        return parse(raw)
    except message.DecodeError as error:
        raise _malformed(method, error) from error


def _malformed(method: str, error: message.DecodeError) -> M1Error:
    said = f"the request of {method} is not a message that it takes ({error})"
    return M1Error(Reason.INVALID_ARGUMENT, said, "make it with the stubs of its service")


async def _each(parse: Callable[[bytes], Any], requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for raw in requests:
        yield parse(raw)


def _unexpected(method: str, error: Exception, database: Path) -> M1Error:
    if isinstance(error, NotImplementedError):  # what a library's service leaves out
        return M1Error(Reason.UNSUPPORTED, f"{method} is not offered", "reflection lists what is")
    full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
    code = (
        error.sqlite_errorcode & 0xFF if isinstance(error, sqlite3.Error) and hasattr(error, "sqlite_errorcode") else 0
    )
    if full or code == sqlite3.SQLITE_FULL:
        _log.error("%s failed: %s", method, error)
        return M1Error(Reason.DISK_FULL, f"the disk is full ({error}); nothing was changed", "free some space")
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        _log.error("%s failed: %s", method, error)
        return M1Error(
            Reason.STORE_BUSY,
            f'another program holds the database "{database}" ({error}), and nothing was changed',
            "end it, or try again",
        )
    if isinstance(error, StoreReplacedError):  # the log says it already
        return M1Error(
            Reason.STORE_REPLACED,
            f"{error} while the daemon ran, and nothing is stored any more",
            "put it back, or stop the daemon and start it again on what is there now",
        )
    # SQLite's own words for a text that is none have no code.
    unreadable = isinstance(error, sqlite3.OperationalError) and "decode to UTF-8" in str(error)
    if isinstance(error, StoreDamagedError) or unreadable or code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        _log.error("%s failed: %s", method, error)
        return M1Error(Reason.STORE_DAMAGED, f'the database "{database}" is damaged ({error})', way_out(database))
    _log.error("%s failed", method, exc_info=error)
    return M1Error(
        Reason.INTERNAL, f"{method} failed: {type(error).__name__}: {error}", "the daemon's log has the trace"
    )


async def _abort(context: aio.ServicerContext[Any, Any], error: M1Error) -> NoReturn:
    status = to_status(error)
    details = ("grpc-status-details-bin", status.SerializeToString())
    await context.abort(grpc.StatusCode[error.status_name], status.message, trailing_metadata=(details,))
    raise AssertionError("abort returned")
