"""The entry point of `m1ctl`."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

from m1ctl.deferred import defer

# A verb makes tens of thousands of objects that stay, modules above all: looking for garbage among them finds none.
_COLLECT_AFTER = 100_000


def main() -> None:
    """Run the command line. Exits with the codes of m1.errors.ExitCode."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets a question mark, not a traceback.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="replace")
    gc.set_threshold(_COLLECT_AFTER)
    defer()
    from m1ctl.app import app

    try:
        app(prog_name="m1ctl")
    except SystemExit as leaving:
        _leave(leaving)


def _leave(leaving: SystemExit) -> NoReturn:
    """End this process at once: taking grpc and all modules apart takes as long as a verb, and gives back nothing.

    What the verb opened it has closed; what is left is to be printed. Where that fails, Python says so on its own way.
    """
    if not isinstance(leaving.code, int):
        raise leaving
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        raise leaving from None
    os._exit(leaving.code)


if __name__ == "__main__":
    main()
