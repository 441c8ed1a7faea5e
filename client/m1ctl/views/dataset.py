"""The progress of reading a dataset, on stderr: a bar on a terminal, a few lines elsewhere."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from m1.units import format_bytes

from m1ctl.output import one_line, tell
from m1ctl.views.suspension import Suspension

if TYPE_CHECKING:
    from m1.v1.dataset_pb2 import PrepareProgress
    from rich.progress import Progress, TaskID

_QUARTERS = 4


class PrepareView:
    """Shows nothing until there is progress: a dataset in the cache needs no word."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._phase = ""
        self._told_quarter = -1
        self._bar: Progress | None = None
        self._ending = ExitStack()
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def show(self, progress: PrepareProgress) -> None:
        """Take in one step of the progress."""
        if sys.stderr.isatty():
            self._show_bar(progress)
        else:
            self._show_line(progress)

    def _show_bar(self, progress: PrepareProgress) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[amount]}"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._ending.callback(self._bar.stop)
            self._bar.start()
            self._ending.enter_context(Suspension(self._bar.stop, self._bar.start))
        if self._task is None or progress.phase != self._phase:
            self._phase = progress.phase
            self._task = self._bar.add_task(self._title(), total=None, amount="")
        self._bar.update(self._task, completed=progress.done, total=progress.total or None, amount=_amount(progress))

    def _show_line(self, progress: PrepareProgress) -> None:
        if progress.phase != self._phase:
            self._phase, self._told_quarter = progress.phase, -1
        quarter = _QUARTERS * progress.done // progress.total if progress.total else 0
        if quarter > self._told_quarter:
            self._told_quarter = quarter
            tell(f"{self._title()}: {_amount(progress)}")

    def _title(self) -> str:
        return one_line(f"{self._phase} {self._source}")


def _amount(progress: PrepareProgress) -> str:
    if progress.phase == "download":
        total = f" of {format_bytes(progress.total)}" if progress.total else ""
        return format_bytes(progress.done) + total
    return f"{progress.done}/{progress.total}" if progress.total else str(progress.done)
