"""What a job has made beside its weights (tables, texts, images), and what a trained model answers."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from m1.errors import M1Error, Reason
from m1.v1 import result_pb2

from m1ctl.sdk.client.calls import Calls
from m1ctl.sdk.requests import build_settings


@dataclass(frozen=True)
class ResultFile:
    """A result with its content."""

    result: result_pb2.Result
    content: bytes
    """JSON of a table, UTF-8 of a text, PNG of an image."""

    @property
    def text(self) -> str:
        """The content of a text."""
        return self.content.decode(errors="replace")

    @property
    def table(self) -> dict[str, Any]:
        """The content of a table: "columns", "rows" and, where there is one, "pivot".

        Raises:
            M1Error: INTERNAL, when it is none.
        """
        import json

        try:
            table = json.loads(self.content)
            if isinstance(table["columns"], list) and isinstance(table["rows"], list):
                return dict(table)
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        raise M1Error(
            Reason.INTERNAL,
            f'the result "{self.result.name}" is not a table',
            "its content can be saved with --out FILE",
            field="name",
            value=self.result.name,
        )


class Results(Calls):
    """ResultService."""

    def results(self, job: str = "") -> list[result_pb2.Result]:
        """Return the results of a job without their content, newest last; of each name the newest one."""
        return list(self._ask(result_pb2.ListResultsResponse, job=job).results)

    def get_result(self, job: str, name: str) -> ResultFile:
        """Return a result with its content.

        Raises:
            M1Error: INTERNAL, when it does not arrive whole, and the daemon's own.
        """
        result: result_pb2.Result | None = None
        content = bytearray()
        for part in self._stream(result_pb2.GetResultResponse, job=job, name=name):
            if part.HasField("result"):
                result = part.result
            content += part.chunk
        if result is None or len(content) != result.size_bytes:
            of = f" of {result.size_bytes}" if result else ""
            raise M1Error(
                Reason.INTERNAL,
                f'the result "{name}" did not arrive whole: {len(content)}{of} bytes',
                "try again",
                field="name",
                value=name,
            )
        return ResultFile(result, bytes(content))

    def use_model(
        self,
        job: str,
        use: str,
        inputs: Collection[str | os.PathLike[str]] = (),
        options: Mapping[str, bool | float | str] | None = None,
        checkpoint: str = "",
        *,
        timeout_s: float | None = None,
    ) -> Iterator[result_pb2.UseModelResponse]:
        """Ask what a job has trained; the answers as they come, in `row`.

        Args:
            job: Its id or name; its best checkpoint answers, or its newest if it has no best.
            use: As the recipe names it: "predict", "sample".
            inputs: Files on the daemon's machine; they are sent as absolute paths.
            options: Any subset of the use's options.
            checkpoint: This one answers, by its id.
            timeout_s: End with TIMED_OUT after this time; None: never.
        """
        return self._stream(
            result_pb2.UseModelResponse,
            timeout_s,
            job=job,
            checkpoint=checkpoint,
            use=use,
            options=build_settings(options or {}, "options."),
            inputs=[os.path.abspath(os.path.expanduser(os.fspath(path))) for path in inputs],
        )
