"""Errors on their way out: the domain's own with their details, any other as INTERNAL with a trace in the log."""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
from grpc import aio
from m1.errors import M1Error, Reason, to_status

_log = logging.getLogger(__name__)


class ErrorInterceptor(aio.ServerInterceptor):
    """Turns what a servicer raises into a status."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the method that was called."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith("/m1.v1."):
            return handler
        codec = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(_unary(handler.unary_unary, method), **codec)
        return grpc.unary_stream_rpc_method_handler(_stream(handler.unary_stream, method), **codec)


def _unary(behaviour: Callable[[Any, Any], Awaitable[Any]], method: str) -> Any:
    async def call(request: Any, context: aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await behaviour(request, context)
        except M1Error as error:
            await _abort(context, error)
        except aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - the call fails, the daemon does not
            await _abort(context, _unexpected(method, error))

    return call


def _stream(behaviour: Callable[[Any, Any], AsyncIterator[Any]], method: str) -> Any:
    async def call(request: Any, context: aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        try:
            async for response in behaviour(request, context):
                yield response
        except M1Error as error:
            await _abort(context, error)
        except aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - the call fails, the daemon does not
            await _abort(context, _unexpected(method, error))

    return call


def _unexpected(method: str, error: Exception) -> M1Error:
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
            Reason.INTERNAL,
            f"another program holds the database ({error}); nothing was changed",
            "end it and try again",
        )
    _log.error("%s failed", method, exc_info=error)
    return M1Error(
        Reason.INTERNAL, f"{method} failed: {type(error).__name__}: {error}", "the daemon's log has the trace"
    )


async def _abort(context: aio.ServicerContext[Any, Any], error: M1Error) -> NoReturn:
    status = to_status(error)
    details = ("grpc-status-details-bin", status.SerializeToString())
    await context.abort(grpc.StatusCode[error.status_name], str(error), trailing_metadata=(details,))
    raise AssertionError("abort returned")
