"""Checkpoints: made, listed, copied here, removed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from m1.v1 import checkpoint_pb2

from m1ctl.sdk.client.calls import Calls


class Checkpoints(Calls):
    """CheckpointService."""

    def create_checkpoint(self, job: str = "", timeout_s: float | None = None) -> checkpoint_pb2.Checkpoint:
        """Make one now; returns when it is durable, however long that takes unless timeout_s is given."""
        response = self._ask(checkpoint_pb2.CreateCheckpointResponse, timeout_s, bounded=False, job=job)
        return response.checkpoint

    def list_checkpoints(self, job: str = "") -> Iterator[checkpoint_pb2.Checkpoint]:
        """Yield the checkpoints of a job, newest first, page by page."""
        for page in self._pages(checkpoint_pb2.ListCheckpointsResponse, job=job):
            yield from page.checkpoints

    def get_checkpoint(self, checkpoint: str) -> checkpoint_pb2.Checkpoint:
        """Return a checkpoint by its id, "j12@352"."""
        return self._ask(checkpoint_pb2.GetCheckpointResponse, checkpoint=checkpoint).checkpoint

    def download_checkpoint(
        self,
        checkpoint: str,
        directory: str | os.PathLike[str],
        on_progress: Callable[[int, int], None] | None = None,
    ) -> checkpoint_pb2.Checkpoint:
        """Copy a checkpoint's files into a new directory, which appears whole and verified or not at all.

        Args:
            checkpoint: Its id.
            directory: Where its files will be; must not exist yet, its parent must.
            on_progress: Called with the bytes done and those of the whole checkpoint.

        Raises:
            M1Error: INVALID_ARGUMENT for the directory, BAD_CHECKPOINT when the hash is wrong, and the daemon's own.
        """
        from m1ctl.sdk.download import receive

        wanted = self.get_checkpoint(checkpoint)
        chunks = self._stream(checkpoint_pb2.DownloadCheckpointResponse, checkpoint=wanted.id)
        receive(wanted, chunks, Path(directory), on_progress)
        return wanted

    def delete_checkpoint(self, checkpoint: str) -> None:
        """Remove one checkpoint."""
        self._ask(checkpoint_pb2.DeleteCheckpointResponse, checkpoint=checkpoint)
