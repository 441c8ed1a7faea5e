"""CheckpointService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO

from m1.durable import open_regular
from m1.endpoint import CHUNK_BYTES
from m1.errors import M1Error, Reason
from m1.jobdir import checkpoint_path
from m1.v1 import checkpoint_pb2, checkpoint_pb2_grpc

from m1d.api.paging import fitting, make_token, page_size, read_token
from m1d.events.translate import checkpoint_to_proto
from m1d.verbs.checkpoints import create_checkpoint
from m1d.verbs.delete import delete_checkpoint
from m1d.verbs.find import find_checkpoint, find_job
from m1d.verbs.parts import Parts


class CheckpointService(checkpoint_pb2_grpc.CheckpointServiceServicer):
    """See proto/m1/v1/checkpoint.proto."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._home = parts.home
        self._store = parts.store

    async def CreateCheckpoint(
        self, request: checkpoint_pb2.CreateCheckpointRequest, context: Any
    ) -> checkpoint_pb2.CreateCheckpointResponse:
        checkpoint = await create_checkpoint(self._parts, find_job(self._parts, request.job))
        return checkpoint_pb2.CreateCheckpointResponse(checkpoint=checkpoint_to_proto(checkpoint))

    async def ListCheckpoints(
        self, request: checkpoint_pb2.ListCheckpointsRequest, context: Any
    ) -> checkpoint_pb2.ListCheckpointsResponse:
        job = find_job(self._parts, request.job)
        size = page_size(request.page_size)
        kind = f"checkpoints-{job.id}"
        found = self._store.checkpoints(job.number, below=read_token(kind, request.page_token), limit=size + 1)
        page = fitting(map(checkpoint_to_proto, found), size)
        token = make_token(kind, found[len(page) - 1].step) if len(found) > len(page) else ""
        return checkpoint_pb2.ListCheckpointsResponse(checkpoints=page, next_page_token=token)

    async def GetCheckpoint(
        self, request: checkpoint_pb2.GetCheckpointRequest, context: Any
    ) -> checkpoint_pb2.GetCheckpointResponse:
        _, checkpoint = find_checkpoint(self._parts, request.checkpoint)
        return checkpoint_pb2.GetCheckpointResponse(checkpoint=checkpoint_to_proto(checkpoint))

    async def DownloadCheckpoint(
        self, request: checkpoint_pb2.DownloadCheckpointRequest, context: Any
    ) -> AsyncIterator[checkpoint_pb2.DownloadCheckpointResponse]:
        job, checkpoint = find_checkpoint(self._parts, request.checkpoint)
        directory = checkpoint_path(self._home.job(job.id), checkpoint.step)
        try:
            # All opened first: files that retention removes meanwhile are still read to their end.
            files = await asyncio.to_thread(_opened, directory)
        except OSError as error:
            raise M1Error(
                Reason.CHECKPOINT_NOT_FOUND,
                f"the files of checkpoint {checkpoint.id} cannot be read: {error}",
                "it may just have been removed; m1ctl checkpoints shows what there is",
                field="checkpoint",
                value=checkpoint.id,
            ) from error
        try:
            for name, file in files:
                size = file.seek(0, 2)
                file.seek(0)
                while (chunk := await asyncio.to_thread(file.read, CHUNK_BYTES)) or not size:
                    yield checkpoint_pb2.DownloadCheckpointResponse(file=name, file_size_bytes=size, chunk=chunk)
                    if not size:  # an empty file is there, too
                        break
        finally:
            for _, file in files:
                file.close()

    async def DeleteCheckpoint(
        self, request: checkpoint_pb2.DeleteCheckpointRequest, context: Any
    ) -> checkpoint_pb2.DeleteCheckpointResponse:
        delete_checkpoint(self._parts, *find_checkpoint(self._parts, request.checkpoint))
        return checkpoint_pb2.DeleteCheckpointResponse()


def _opened(directory: Path) -> list[tuple[str, BinaryIO]]:
    """Every file below a directory, by its name with "/", open.

    Raises:
        OSError: one cannot be opened.
    """
    paths = sorted(path for path in directory.rglob("*") if not path.is_dir())
    files: list[tuple[str, BinaryIO]] = []
    try:
        for path in paths:
            files.append((path.relative_to(directory).as_posix(), open(path, "rb", opener=open_regular)))  # noqa: PERF401, SIM115
        return files
    except OSError:
        for _, file in files:
            file.close()
        raise
