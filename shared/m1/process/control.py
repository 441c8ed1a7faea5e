"""What the daemon wants, as the training process sees it between two steps.

Looking costs one `stat`; the file is read again only when it has changed. SIGTERM (the machine is going down) means
`yield`, whatever the file says, unless that says `stop`.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Literal

from m1.jobdir import Desired, Want, desired_path, read_desired

log = logging.getLogger(__name__)

# How long a held process sleeps between two looks.
_HOLD_LOOK_S = 0.02


class StopRequested(Exception):  # noqa: N818 - not an error: the way out of whatever is being done
    """The daemon wants this process to go."""

    def __init__(self, outcome: Literal["yielded", "stopped"]) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class Control:
    """The desired state."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = desired_path(directory)
        self._seen: tuple[int, int, int] | None = None
        self._desired = Desired(Want.RUN)
        self._terminate = threading.Event()

    def terminate(self) -> None:
        """What the handler of SIGTERM calls."""
        self._terminate.set()

    @property
    def terminated(self) -> bool:
        """SIGTERM has come: there is no time to wait for anything."""
        return self._terminate.is_set()

    def look(self) -> Desired:
        """The desired state now. Without a file: run."""
        try:
            facts = os.stat(self._path)
            signature = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
            if signature != self._seen:
                self._desired = read_desired(self._directory)
                self._seen = signature
        except FileNotFoundError:
            self._desired = Desired(Want.RUN)
        except ValueError as error:
            # Not written by the daemon, which replaces it in one step: what it wanted last still holds.
            self._seen = signature
            log.warning("the desired state is not readable, the one before it stays: %s", error)
        if self._terminate.is_set() and self._desired.want is not Want.STOP:
            return Desired(Want.YIELD, self._desired.checkpoint)
        return self._desired

    def stay(self) -> bool:
        """Wait a moment, and say whether the daemon lets this process stay."""
        self.rest()
        return self.look().want in (Want.RUN, Want.HOLD)

    def rest(self) -> None:
        """Wait a moment before the next look, without using the processor."""
        self._terminate.wait(_HOLD_LOOK_S)
