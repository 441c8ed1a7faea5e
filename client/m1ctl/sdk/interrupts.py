"""Ctrl-C where it has to wait: what was begun is noted first, and what is cleaned up is cleaned up to its end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from m1ctl.output import tell


@contextmanager
def uninterrupted(doing: str = "") -> Iterator[None]:
    """Let Ctrl-C, once or often, take effect at the end of the block. It comes to the main thread only.

    Args:
        doing: What somebody is told to wait for who presses it: "ending the job". Empty where nobody would notice.

    Raises:
        KeyboardInterrupt: at the end of the block, when it was pressed in the middle.
    """
    before = signal.getsignal(signal.SIGINT)
    # What is not Python's own handling is somebody else's, or of a block around this one: it raises nothing here.
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = False

    def note(*_: object) -> None:
        nonlocal pressed
        if doing and not pressed:
            tell(f"{doing}; this takes a moment")
        pressed = True

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt
