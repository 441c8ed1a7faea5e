"""Ctrl-Z in the middle of a live view: the terminal is given back before the process stops, and drawn on afterwards."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def suspendable(give_back: Callable[[], object], take_again: Callable[[], object]) -> Iterator[None]:
    """Call `give_back` when Ctrl-Z stops the process in the block, and `take_again` when it goes on."""
    # What is not the system's own handling is somebody else's: a shell without job control ignores Ctrl-Z.
    before = signal.getsignal(signal.SIGTSTP)
    if before is not signal.SIG_DFL or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        # To this thread, so that it has stopped when the call returns: another one might let this one run on.
        signal.pthread_kill(threading.get_ident(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, stop)
        take_again()

    signal.signal(signal.SIGTSTP, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, before)
