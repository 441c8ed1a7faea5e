"""What a program prints, on its way into the job's log.

It comes through a pipe, so that a disk that refuses stops no program: what can't be written is counted, and said as
soon as writing works again.
"""

from __future__ import annotations

import os

_CHUNK_BYTES = 2**16


class Output:
    """The pipe's reading end, and the log."""

    def __init__(self, log: int) -> None:
        """`log` is a descriptor that appends."""
        self._log = log
        self.fd, self.program_end = os.pipe()
        os.set_blocking(self.fd, False)
        self._lost_bytes = 0

    def take(self) -> bool:
        """Write what is there, a chunk at most; False when there was nothing, or nobody is left to print."""
        try:
            chunk = os.read(self.fd, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        if chunk:
            self._write(chunk)
        return bool(chunk)

    def take_all(self) -> None:
        """Write all that is left in the pipe."""
        while self.take():
            pass

    def _write(self, chunk: bytes) -> None:
        if self._lost_bytes:
            told = f"\nm1d: {self._lost_bytes} bytes of the output are missing here: the disk was full\n".encode()
            if not self._written(told):
                self._lost_bytes += len(chunk)
                return
            self._lost_bytes = 0
        if not self._written(chunk):
            self._lost_bytes += len(chunk)

    def _written(self, data: bytes) -> bool:
        """Write all of it or say that it could not be written; a part may have been."""
        try:
            while data:
                data = data[os.write(self._log, data) :]
        except OSError:
            return False
        return True
