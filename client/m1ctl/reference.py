"""docs/cli.md: the help of every command, as `m1ctl ... --help` prints it on a terminal of 100 columns.

    python -m m1ctl.reference          # prints it
    python -m m1ctl.reference FILE     # writes it

One page on which all that a person reads is seen at once; `make lint` fails when it is out of date.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_WIDTH = 100
_HEAD = """\
# The command line

Every command with its `--help`. Written by `make docs`; change the help texts in `client/m1ctl`, not this page.
"""


def page() -> str:
    """Return the page; the same on every machine, whatever its terminal."""
    import typer.main

    from m1ctl.app import app

    os.environ.update(COLUMNS=str(_WIDTH), TERM="dumb")
    command: Any = typer.main.get_command(app)
    context = command.make_context("m1ctl", ["list"], terminal_width=_WIDTH, resilient_parsing=True)
    sections = [f"## {path}\n\n```\n{text}\n```\n" for path, text in _helps(command, context)]
    return "\n".join([_HEAD, *sections])


def _helps(command: Any, context: Any) -> Iterator[tuple[str, str]]:
    """Return every command below, each with its help, in the order in which a person is shown them."""
    yield context.command_path, "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        below = command.get_command(context, name)
        inner = type(context)(below, info_name=name, parent=context, terminal_width=_WIDTH)
        yield from _helps(below, inner)


def main() -> None:
    """Print the page, or write it to the file that is named."""
    if sys.argv[1:]:
        Path(sys.argv[1]).write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())


if __name__ == "__main__":
    main()
