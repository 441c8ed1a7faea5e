"""Results of a job and uses of its model: `m1ctl results`, `predict`, `sample`."""

from __future__ import annotations

import json
import math
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from m1.errors import M1Error, Reason

from m1ctl.commands.options import OptionalJob, Out, Output, RequiredJob
from m1ctl.output import Format, put, put_json, put_text, tell
from m1ctl.session import check_not_empty, reference, session_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.struct_pb2 import Value

    from m1ctl.sdk.client import ResultFile
    from m1ctl.session import Session

Checkpoint = Annotated[
    str | None,
    typer.Option(metavar="ID", help="Checkpoint to use (default: the best, else the newest).", show_default=False),
]


def results(
    context: typer.Context,
    job: OptionalJob = None,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Result to show (default: list them all).", show_default=False),
    ] = None,
    out: Out = None,
    output: Output = Format.text,
) -> None:
    """List a job's results, or show one.

    Tables and texts are printed; save an image with --out. With -o json, a table is printed with its columns and rows,
    anything else by its description.
    """
    from m1.v1 import result_pb2

    from m1ctl.out_file import check_writable
    from m1ctl.views.results import result_table

    check_not_empty("NAME", name, "omit it to list all results")
    check_not_empty("--out", out, "name a file, or omit it")
    if out and name is None:
        raise M1Error(
            Reason.INVALID_ARGUMENT, f'--out "{out}" needs the name of a result', "m1ctl results JOB NAME --out FILE"
        )
    if out:
        check_writable(out)
    with session_of(context).connect() as client:
        job_id = client.get(reference(job)).id
        if name is not None:
            _show(client.get_result(job_id, name), out, output)
            return
        found = client.results(job_id)
    if output is Format.json:
        put_json(result_pb2.ListResultsResponse(results=found))
    elif found:
        put(result_table(found))
    else:
        tell(f"job {job_id} has no results yet")


def _show(file: ResultFile, out: str | None, output: Format) -> None:
    """Print a result, or write it to a file.

    Raises:
        M1Error: INVALID_ARGUMENT, for an image without a file; as `write`.
    """
    from m1.v1 import result_pb2

    from m1ctl.out_file import write
    from m1ctl.views.results import table_page

    result = file.result
    if out:
        write(out, file.content, "free some space, or name another file")
    if output is Format.json:
        if result.kind == result_pb2.RESULT_KIND_TABLE:
            put(json.dumps(file.table, indent=2))
        else:
            put_json(result)
    elif out:
        tell(f"wrote {out}")
    elif result.kind == result_pb2.RESULT_KIND_TABLE:
        put(table_page(file.table))
    elif result.kind == result_pb2.RESULT_KIND_TEXT:
        put_text(file.text)
        put_text("" if file.text.endswith("\n") else "\n")
    else:
        raise M1Error(
            Reason.INVALID_ARGUMENT,
            f'the result "{result.name}" cannot be printed',
            "save it with --out FILE",
            field="out",
        )
    if result.truncated:
        tell(f"truncated: {result.truncated}")


def predict(
    context: typer.Context,
    job: RequiredJob,
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Files to predict for.", show_default=False)],
    top: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Show the N most likely answers.", show_default=False)
    ] = None,
    checkpoint: Checkpoint = None,
    output: Output = Format.text,
) -> None:
    """Run a trained model on files.

    Prints a row for each file; with -o json, one object a line. Exits with 1 if a file could not be read. Does not
    disturb a job that is running.
    """
    from m1.errors import ExitCode

    from m1ctl.views.results import answer_table

    for path in files:
        check_file(path)
    options: dict[str, bool | float | str] = {} if top is None else {"top": top}
    rows = []
    failed = False
    for row in _answers(session_of(context), reference(job), "predict", files, options, checkpoint):
        failed = failed or "error" in row
        if output is Format.json:
            put(json.dumps(row, allow_nan=False))
        else:
            rows.append(row)
    if rows:
        put(answer_table(rows))
    if failed:
        raise typer.Exit(ExitCode.ERROR)


def sample(
    context: typer.Context,
    job: RequiredJob,
    prompt: Annotated[str | None, typer.Option(help="Text to continue.", show_default=False)] = None,
    length: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="How much text to generate.", show_default=False)
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(min=0, help="Higher is more varied; 0 always picks the most likely.", show_default=False),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Random seed.", show_default=False)] = None,
    checkpoint: Checkpoint = None,
    output: Output = Format.text,
) -> None:
    """Generate text with a trained model.

    Prints the text as it is generated; with -o json, one object a line. m1ctl recipes show lists the defaults. Does not
    disturb a job that is running.
    """
    given = {"prompt": prompt, "length": length, "temperature": temperature, "seed": seed}
    options = {name: value for name, value in given.items() if value is not None}
    last = "\n"
    for row in _answers(session_of(context), reference(job), "sample", (), options, checkpoint):
        if output is Format.json:
            put(json.dumps(row, allow_nan=False))
            continue
        text = str(row.get("text", ""))
        put_text(text)
        last = text[-1:] or last
    if last != "\n" and sys.stdout.isatty():
        put_text("\n")


def _answers(
    session: Session,
    job: str,
    use: str,
    files: list[str] | tuple[()],
    options: dict[str, bool | float | str],
    checkpoint: str | None,
) -> Iterator[dict[str, object]]:
    check_not_empty("--checkpoint", checkpoint, "name a checkpoint, or omit it")
    with session.connect() as client:
        for answer in client.use_model(job, use, files, options, checkpoint or "", timeout_s=session.timeout_s):
            if answer.HasField("row"):
                yield {name: _plain(value) for name, value in answer.row.fields.items()}


def _plain(value: Value) -> float | str | bool | None:
    """Return a value of an answer; None for what JSON does not have."""
    match value.WhichOneof("kind"):
        case "number_value":
            return value.number_value if math.isfinite(value.number_value) else None
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def check_file(path: str) -> None:
    """Refuse what is not a file, before a model is loaded for it.

    Raises:
        M1Error: FILE_NOT_FOUND or INVALID_ARGUMENT.
    """
    full = os.path.expanduser(path)
    if os.path.isdir(full):
        message, reason = f'"{path}" is a directory', Reason.INVALID_ARGUMENT
    elif not os.path.exists(full):
        message, reason = f'file "{path}" does not exist', Reason.FILE_NOT_FOUND
    else:
        return
    raise M1Error(reason, message, "name files", field="file", value=path)
