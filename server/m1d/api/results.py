"""ResultService."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, BinaryIO

from m1.endpoint import CHUNK_BYTES, MAX_MESSAGE_BYTES
from m1.errors import M1Error, Reason
from m1.legacy import MadeResult
from m1.v1 import result_pb2, result_pb2_grpc

from m1d.api.settings import plain
from m1d.events.translate import result_to_proto
from m1d.verbs.find import find_job
from m1d.verbs.parts import Parts
from m1d.verbs.results import find_result, list_results, open_result
from m1d.verbs.use import answer, make_question

# Processes that answer at the same time: each loads torch and a model beside what trains.
_MOST_ANSWERING = 2


class ResultService(result_pb2_grpc.ResultServiceServicer):
    """See proto/m1/v1/result.proto."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._answering = asyncio.Semaphore(_MOST_ANSWERING)

    async def ListResults(self, request: result_pb2.ListResultsRequest, context: Any) -> result_pb2.ListResultsResponse:
        found = list_results(self._parts, find_job(self._parts, request.job))
        return result_pb2.ListResultsResponse(results=map(result_to_proto, found))

    async def GetResult(
        self, request: result_pb2.GetResultRequest, context: Any
    ) -> AsyncIterator[result_pb2.GetResultResponse]:
        job = find_job(self._parts, request.job)
        found = find_result(self._parts, job, request.name)
        file: BinaryIO
        if isinstance(found, MadeResult):
            result, file, size = found.result, io.BytesIO(found.content), len(found.content)
        else:
            result = found
            file, size = await asyncio.to_thread(open_result, self._parts.home.job(job.id), result)
        with file:
            # The file may be newer than what the store knows of it by now.
            yield result_pb2.GetResultResponse(result=result_to_proto(replace(result, size_bytes=size)))
            while chunk := await asyncio.to_thread(file.read, min(CHUNK_BYTES, size)):
                size -= len(chunk)
                yield result_pb2.GetResultResponse(chunk=chunk)

    async def UseModel(
        self, request: result_pb2.UseModelRequest, context: Any
    ) -> AsyncIterator[result_pb2.UseModelResponse]:
        options = plain(request.options)
        question = await make_question(
            self._parts, request.job, request.checkpoint, request.use, options, list(request.inputs)
        )
        async with self._answering, aclosing(answer(self._parts, question)) as rows:
            yield result_pb2.UseModelResponse(checkpoint=question.checkpoint.id)
            async for row in rows:
                yield _response(row, question.use)


def _response(row: Any, use: str) -> result_pb2.UseModelResponse:
    """Make the message of an answer.

    Raises:
        M1Error: INTERNAL, for what is none; MESSAGE_TOO_LARGE, for what cannot be sent.
    """
    response = result_pb2.UseModelResponse()
    try:
        response.row.update(row)
    except (ValueError, TypeError, AttributeError) as error:
        message = f"{use} gave an answer that cannot be sent ({type(error).__name__})"
        raise M1Error(
            Reason.INTERNAL, message, "an answer has names, and a number, a text or a list to each"
        ) from error
    if response.ByteSize() > MAX_MESSAGE_BYTES:
        message = f"{use} gave an answer of {response.ByteSize()} bytes"
        raise M1Error(Reason.MESSAGE_TOO_LARGE, message, f"one may have {MAX_MESSAGE_BYTES}")
    return response
