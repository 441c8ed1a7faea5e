"""The entry point of `m1ctl`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. Exits with the codes of m1.errors.ExitCode."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets a question mark, not a traceback.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="replace")
    from m1ctl.app import app

    app(prog_name="m1ctl")


if __name__ == "__main__":
    main()
