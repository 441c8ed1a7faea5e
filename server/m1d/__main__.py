"""`m1d serve`: the daemon, in the foreground. `m1ctl daemon` runs it in the background."""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import importlib.util
import os
import sqlite3
import sys

from m1.descriptors import close_inherited
from m1.errors import ExitCode, M1Error
from m1.paths import home_from_environment


def main() -> None:
    """The entry point. Exits with the codes of m1.errors.ExitCode."""
    close_inherited()
    parser = argparse.ArgumentParser(prog="m1d", description="A training daemon for the computer on your desk.")
    parser.add_argument("--version", action="version", version=importlib.metadata.version("m1d"))
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve in the foreground until SIGTERM or Ctrl-C")
    serve.add_argument("--home", help="the home, if not $M1D_HOME or ~/.m1d")
    serve.add_argument("--quiet", action="store_true", help="log to the home's log only, not to stderr")
    arguments = parser.parse_args()
    missing = [name for name in ("psutil", "grpc_health", "grpc_reflection") if importlib.util.find_spec(name) is None]
    if missing:
        _fail(f"{', '.join(missing)} is not installed: pip install 'm1d[daemon]'", ExitCode.ERROR)
    try:
        asyncio.run(_serve(arguments.home, foreground=not arguments.quiet))
    except M1Error as error:
        _fail(str(error), error.exit_code)
    except sqlite3.Error as error:
        database = home_from_environment(arguments.home).database
        _fail(
            f'the database "{database}" cannot be used ({error}), and nothing was changed: move it away to begin'
            " with an empty one, or put a copy of it back",
            ExitCode.ERROR,
        )
    except OSError as error:
        _fail(f"the home cannot be used ({error})", ExitCode.ERROR)


async def _serve(home_override: str | None, *, foreground: bool) -> None:
    from m1d.daemon import Daemon
    from m1d.home.logs import configure

    os.umask(0o077)
    home = home_from_environment(home_override)
    os.environ["M1D_HOME"] = str(home.root)  # whatever it starts has the same home
    os.chdir("/")  # whatever directory it was started in can go away
    daemon = Daemon(home)
    configure(home.log, foreground=foreground)
    await daemon.serve()


def _fail(message: str, code: ExitCode) -> None:
    print(f"m1d: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(code)


if __name__ == "__main__":
    main()
