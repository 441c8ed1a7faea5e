"""Datasets: `m1ctl data list`, `m1ctl data import NAME PATH`, `m1ctl data delete NAME`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from m1ctl.commands.options import Output
from m1ctl.output import Format, put, put_json
from m1ctl.session import check_not_empty, session_of

app = typer.Typer(help="List, import and delete datasets.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_(context: typer.Context, output: Output = Format.text) -> None:
    """List built-in and imported datasets."""
    from m1.v1 import dataset_pb2

    from m1ctl.views.pages import dataset_table

    with session_of(context).connect() as client:
        datasets = client.datasets()
    if output is Format.json:
        put_json(dataset_pb2.ListDatasetsResponse(datasets=datasets))
    else:
        put(dataset_table(datasets))


@app.command("import")
def import_(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name to use in m1ctl submit --data.", show_default=False)
    ],
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="A folder or tar of <split>/<class>/<image>, a text file or a folder of them, or torchvision's"
            " CIFAR-10 archive.",
            show_default=False,
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="How to read images: size=160 (pixels), fit=crop, pad or squeeze (default: 32, squeeze). Repeatable.",
        ),
    ] = None,
    output: Output = Format.text,
) -> None:
    """Import a dataset into the daemon's cache."""
    from m1.v1 import dataset_pb2

    from m1ctl.commands.parsing import parse_pairs
    from m1ctl.views.dataset import PrepareView
    from m1ctl.views.pages import dataset_page

    check_not_empty("NAME", name, "name the dataset")
    check_not_empty("PATH", path, 'name a folder or a file; "." is the current directory')
    source = os.path.abspath(os.path.expanduser(path))
    with session_of(context).connect() as client, PrepareView(name) as view:
        dataset = client.prepare_dataset(
            source, name, on_progress=view.show, settings=parse_pairs("--set", settings or ())
        )
    if output is Format.json:
        put_json(dataset_pb2.PrepareDatasetResponse(dataset=dataset))
    else:
        put(dataset_page(dataset))


@app.command("delete")
def delete(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Dataset name (see m1ctl data list).", show_default=False)
    ],
    output: Output = Format.text,
) -> None:
    """Delete a dataset from the daemon's cache.

    Its source is not touched.
    """
    from m1.units import format_bytes
    from m1.v1 import dataset_pb2

    check_not_empty("NAME", name, "see m1ctl data list")
    with session_of(context).connect() as client:
        freed_bytes = client.delete_dataset(name)
    if output is Format.json:
        put_json(dataset_pb2.DeleteDatasetResponse(freed_bytes=freed_bytes))
    else:
        put(f"deleted {name} ({format_bytes(freed_bytes)} freed)")
