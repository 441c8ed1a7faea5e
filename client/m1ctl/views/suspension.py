"""Ctrl-Z in the middle of a live view: the terminal is given back before the process stops, and drawn on afterwards."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self


class Suspension:
    """Handles Ctrl-Z inside its `with`. What draws is never interrupted: a stream cannot be written to in a write."""

    def __init__(self, give_back: Callable[[], object], take_again: Callable[[], object]) -> None:
        self._give_back = give_back
        self._take_again = take_again
        self._is_drawing = self._is_asked = self._is_ours = False

    def __enter__(self) -> Self:
        # What is not the system's own handling is somebody else's: a shell without job control ignores Ctrl-Z.
        is_free = signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL
        if is_free and threading.current_thread() is threading.main_thread():
            self._is_ours = True
            signal.signal(signal.SIGTSTP, self._take_signal)
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_ours:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Let Ctrl-Z take effect at the end of the block."""
        self._is_drawing = True
        try:
            yield
        finally:
            self._is_drawing = False
            if self._is_asked:
                self._stop()

    def _take_signal(self, *_: object) -> None:
        self._is_asked = True
        if not self._is_drawing:
            self._stop()

    def _stop(self) -> None:
        """Stop the process; returns when it goes on."""
        self._is_asked = False
        self._is_drawing = True  # a second Ctrl-Z waits for the end of this
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        # To this thread, so that it has stopped when the call returns: another one might let this one run on.
        signal.pthread_kill(threading.get_ident(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._take_signal)
        self._take_again()
        self._is_drawing = False
