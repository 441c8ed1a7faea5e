"""`m1ctl bench`: benchmark m1d, test rules of thumb, compare two results."""

from __future__ import annotations

import datetime
import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from m1.errors import ExitCode, M1Error

from m1ctl.commands.options import Out, Output
from m1ctl.output import Format, put, tell
from m1ctl.session import check_not_empty, session_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m1.v1 import job_pb2

    from m1ctl.sdk.client import Client

app = typer.Typer(help="Benchmark m1d itself, or test rules of thumb about training.", rich_markup_mode=None)


class Part(enum.StrEnum):
    """What can be measured alone."""

    engine = "engine"
    daemon = "daemon"
    cold = "cold"
    start = "start"


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    only: Annotated[
        list[Part] | None,
        typer.Option(help="Measure only this part (default: all of them). Repeatable.", show_default=False),
    ] = None,
    out: Out = None,
    output: Output = Format.text,
) -> None:
    """Benchmark m1d itself: engine, daemon, cold start, command line.

    Needs an idle machine. Its jobs are deleted afterwards.
    """
    if context.invoked_subcommand:
        return
    from m1ctl.bench.parts import PARTS, check_idle

    _check_out(out)
    session = session_of(context)
    with session.connect() as client:
        check_idle(client)
        found: list[job_pb2.Finding] = []
        for part in dict.fromkeys(only or Part):
            tell(f"measuring: {part.value}")
            found += PARTS[part.value](client, session)
        _put(client, found, out, output)


@app.command()
def claims(
    context: typer.Context,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of claims. Repeatable.")
    ] = None,
    out: Out = None,
    output: Output = Format.text,
) -> None:
    """Test rules of thumb about training on this machine."""
    from m1ctl.commands.parsing import parse_pairs
    from m1ctl.views.follow import follow_to_the_end
    from m1ctl.views.measurement import MeasuringView

    _check_out(out)
    with session_of(context).connect() as client:
        job = client.submit("claims", settings=parse_pairs("--set", settings or ()))
        code = follow_to_the_end(client, job, Format.text, MeasuringView())
        if code is not ExitCode.INTERRUPTED:
            found = client.get(job.id).findings
            # A result that is not whole takes no good one's place.
            is_whole = code is ExitCode.OK and bool(found)
            if out and not is_whole:
                tell(f'"{out}" was not changed: the result is incomplete')
            _put(client, found, out if is_whole else None, output)
    raise typer.Exit(code)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A.json", show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="B.json", show_default=False)],
    output: Output = Format.text,
) -> None:
    """Compare two results written by --out or -o json."""
    from m1ctl.bench.results import compare as compare_results
    from m1ctl.bench.results import comparison_document, comparison_page, read_result, to_text

    results = read_result(a), read_result(b)
    rows = compare_results(*results)
    if output is Format.json:
        put(to_text(comparison_document(*results, rows)))
    else:
        put(comparison_page(*results, rows))


def _check_out(out: str | None) -> None:
    """Refuse a file that could not be written, before minutes are spent.

    Raises:
        M1Error: INVALID_ARGUMENT.
    """
    from m1ctl.out_file import check_writable

    check_not_empty("--out", out, "name a file, or omit it")
    if out:
        check_writable(out)


def _put(client: Client, found: Sequence[job_pb2.Finding], out: str | None, output: Format) -> None:
    """Write the result, and print it whether or not that went well.

    Raises:
        M1Error: DISK_FULL or INTERNAL, when it is printed.
    """
    from m1ctl.bench.results import document, to_text
    from m1ctl.out_file import write
    from m1ctl.views.pages import findings_page

    now = datetime.datetime.now().astimezone()
    text = to_text(document(found, client.system_info(), client.topology(), now))
    refused: M1Error | None = None
    if out:
        try:
            write(out, f"{text}\n".encode(), "the result is on stdout only; free some space, or name another file")
        except M1Error as error:
            refused = error
    if output is Format.json:
        put(text)
    elif found:
        put(findings_page(found))
    if refused:
        raise refused
