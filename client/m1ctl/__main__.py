"""The entry point of `m1ctl`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line. Exits with the codes of m1.errors.ExitCode."""
    # gRPC's own diagnostics are not our sentences.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets a question mark, not a traceback.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="replace")
    from m1ctl.app import app

    app(prog_name="m1ctl")


if __name__ == "__main__":
    main()
