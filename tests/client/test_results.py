"""Results and uses: how they are printed, and the commands against a service of the contract that the test plays."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from m1.endpoint import socket_address
from m1.errors import ExitCode, M1Error, Reason
from m1.paths import Home
from m1.v1 import job_pb2, job_pb2_grpc, result_pb2, result_pb2_grpc
from m1ctl import ResultFile, connect
from m1ctl.commands.results import check_file
from m1ctl.views.results import answer_table, result_table, table_page

CONFUSION = {
    "columns": [{"name": "true", "unit": ""}, {"name": "predicted", "unit": ""}, {"name": "count", "unit": ""}],
    "rows": [["cat", "dog", 2], ["cat", "cat", 8], ["dog", "dog", 9]],
    "pivot": ["true", "predicted", "count"],
}
EACH = {
    "columns": [{"name": "class", "unit": ""}, {"name": "recall", "unit": "fraction"}, {"name": "n", "unit": ""}],
    "rows": [["cat", 0.8, 10], ["dog\x1b[31m", None, 9]],
}


def test_a_table_is_printed_with_its_units() -> None:
    assert table_page(EACH).splitlines() == [
        "CLASS      RECALL   N",
        "cat       80.00 %  10",
        "dog [31m        -   9",
    ]


def test_a_table_with_a_pivot_is_a_matrix_in_one_order() -> None:
    assert table_page(CONFUSION).splitlines() == [
        r"TRUE \ PREDICTED  cat  dog",
        "cat                 8    2",
        "dog                 -    9",
    ]


def test_a_matrix_that_is_too_wide_is_printed_row_by_row() -> None:
    wide = CONFUSION | {"rows": [["a", f"b{number}", number] for number in range(13)]}
    assert table_page(wide).splitlines()[:2] == ["TRUE  PREDICTED  COUNT", "a     b0             0"]


@pytest.mark.parametrize("pivot", [None, ["true", "nothing", "count"], ["true"], "true"])
def test_a_pivot_that_names_no_columns_makes_no_matrix(pivot: Any) -> None:
    assert table_page(CONFUSION | {"pivot": pivot}).splitlines()[0] == "TRUE  PREDICTED  COUNT"


def test_results_are_listed_with_kind_step_and_size() -> None:
    found = [
        result_pb2.Result(
            name="confusion", kind=result_pb2.RESULT_KIND_TABLE, title="What was mistaken.", step=8, size_bytes=2000
        ),
        result_pb2.Result(name="new", kind=9, title="Of a newer daemon."),  # type: ignore[arg-type]
    ]
    assert [line.split() for line in result_table(found).splitlines()] == [
        ["NAME", "KIND", "STEP", "SIZE", "TITLE"],
        ["confusion", "table", "8", "2.0", "kB", "What", "was", "mistaken."],
        ["new", "kind", "9", "0", "0", "B", "Of", "a", "newer", "daemon."],
    ]


def test_answers_have_their_file_first() -> None:
    rows: list[dict[str, Any]] = [
        {"probability": 0.93128, "class": "cat", "file": "/a.jpg"},
        {"file": "/b.jpg", "class": "dog"},
    ]
    assert [line.split() for line in answer_table(rows).splitlines()] == [
        ["FILE", "CLASS", "PROBABILITY"],
        ["/a.jpg", "cat", "0.9313"],
        ["/b.jpg", "dog", "-"],
    ]


def test_a_table_that_is_none_is_an_error() -> None:
    for content in (b"", b"[]", b'{"rows": []}', b"\xff"):
        with pytest.raises(M1Error, match='the result "x" is not a table'):
            _ = ResultFile(result_pb2.Result(name="x"), content).table


def test_only_files_are_asked_about(tmp_path: Path) -> None:
    with pytest.raises(M1Error, match="is a directory") as refused:
        check_file(str(tmp_path))
    with pytest.raises(M1Error, match="does not exist") as refused:
        check_file(str(tmp_path / "a.jpg"))
    assert refused.value.reason is Reason.FILE_NOT_FOUND


class Played(result_pb2_grpc.ResultServiceServicer, job_pb2_grpc.JobServiceServicer):
    """A daemon with one job and three results."""

    contents = {  # noqa: RUF012
        "confusion": (result_pb2.RESULT_KIND_TABLE, json.dumps(CONFUSION).encode()),
        "sample": (result_pb2.RESULT_KIND_TEXT, b"def f():\n\treturn 1"),
        "mistakes": (result_pb2.RESULT_KIND_IMAGE, b"\x89PNG" + bytes(range(256)) * 9000),
    }

    def __init__(self) -> None:
        self.asked: list[result_pb2.UseModelRequest] = []

    def result(self, name: str) -> result_pb2.Result:
        kind, content = self.contents[name]
        cut = "100 of 4,000 rows" if name == "confusion" else ""
        return result_pb2.Result(name=name, kind=kind, title="What.", step=3, size_bytes=len(content), truncated=cut)

    def GetJob(self, request: job_pb2.GetJobRequest, context: Any) -> job_pb2.GetJobResponse:
        return job_pb2.GetJobResponse(job=job_pb2.Job(id="j1", name=request.job))

    def ListResults(self, request: result_pb2.ListResultsRequest, context: Any) -> result_pb2.ListResultsResponse:
        return result_pb2.ListResultsResponse(results=map(self.result, self.contents))

    def GetResult(self, request: result_pb2.GetResultRequest, context: Any) -> Iterator[result_pb2.GetResultResponse]:
        _, content = self.contents[request.name]
        yield result_pb2.GetResultResponse(result=self.result(request.name))
        for start in range(0, len(content), 2**20):
            yield result_pb2.GetResultResponse(chunk=content[start : start + 2**20])

    def UseModel(self, request: result_pb2.UseModelRequest, context: Any) -> Iterator[result_pb2.UseModelResponse]:
        self.asked.append(request)
        yield result_pb2.UseModelResponse(checkpoint="j1@3")
        rows: list[dict[str, Any]] = [{"text": "def "}, {"text": "f\x1b[31m"}]
        if request.use == "predict":
            rows = [{"file": path, "class": "cat", "probability": float("nan")} for path in request.inputs]
        for row in rows:
            answer = result_pb2.UseModelResponse()
            answer.row.update(row)
            yield answer


@pytest.fixture
def played() -> Iterator[tuple[Played, Home]]:
    with tempfile.TemporaryDirectory(prefix="m1-", dir="/tmp") as directory:
        home = Home(Path(directory))
        server, service = grpc.server(ThreadPoolExecutor(2)), Played()
        result_pb2_grpc.add_ResultServiceServicer_to_server(service, server)
        job_pb2_grpc.add_JobServiceServicer_to_server(service, server)
        server.add_insecure_port(socket_address(home))
        server.start()
        yield service, home
        server.stop(None).wait()


def m1ctl(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "m1ctl", "--home", str(home.root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_results_of_a_job_are_listed_and_shown(played: tuple[Played, Home]) -> None:
    _, home = played
    assert [line.split()[:3] for line in m1ctl(home, "results", "first").stdout.splitlines()[1:]] == [
        ["confusion", "table", "3"],
        ["sample", "text", "3"],
        ["mistakes", "image", "3"],
    ]
    shown = m1ctl(home, "results", "first", "confusion")
    assert shown.stdout == table_page(CONFUSION) + "\n"
    assert shown.stderr == "truncated: 100 of 4,000 rows\n"
    assert json.loads(m1ctl(home, "results", "first", "confusion", "-o", "json").stdout) == CONFUSION
    assert m1ctl(home, "results", "first", "sample").stdout == "def f():\n\treturn 1\n"
    assert json.loads(m1ctl(home, "results", "first", "sample", "-o", "json").stdout)["size_bytes"] == "18"


def test_an_image_is_written_to_a_file(played: tuple[Played, Home], tmp_path: Path) -> None:
    service, home = played
    refused = m1ctl(home, "results", "first", "mistakes")
    assert (refused.returncode, refused.stdout) == (ExitCode.USAGE, "")
    assert "--out FILE" in refused.stderr
    done = m1ctl(home, "results", "first", "mistakes", "--out", str(tmp_path / "a.png"))
    assert (done.returncode, done.stdout) == (ExitCode.OK, ""), done.stderr
    assert (tmp_path / "a.png").read_bytes() == service.contents["mistakes"][1]
    assert m1ctl(home, "results", "first", "--out", str(tmp_path / "b")).returncode == ExitCode.USAGE


def test_a_model_is_asked_about_files_by_their_absolute_paths(played: tuple[Played, Home], tmp_path: Path) -> None:
    service, home = played
    (tmp_path / "a.jpg").write_bytes(b"x")
    path = f"{tmp_path}/./a.jpg"
    done = m1ctl(home, "predict", "first", path, "--top", "2", "--checkpoint", "j1@3")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["FILE", "CLASS", "PROBABILITY"],
        [f"{tmp_path}/a.jpg", "cat", "-"],
    ]
    (asked,) = service.asked
    assert (asked.job, asked.use, asked.checkpoint, list(asked.inputs)) == (
        "first", "predict", "j1@3", [f"{tmp_path}/a.jpg"],
    )  # fmt: skip
    assert MessageToDict(asked.options) == {"top": 2.0}
    printed = m1ctl(home, "predict", "first", path, path, "-o", "json").stdout.splitlines()
    assert [json.loads(line)["probability"] for line in printed] == [None, None]
    assert m1ctl(home, "predict", "first", str(tmp_path / "absent")).returncode == ExitCode.NOT_FOUND
    assert len(service.asked) == 2


def test_a_model_writes_text(played: tuple[Played, Home]) -> None:
    service, home = played
    done = m1ctl(home, "sample", "first", "--prompt", "def ", "--length", "9", "--temperature", "0.5", "--seed", "0")
    assert done.stdout == "def f\x1b[31m"  # no terminal
    assert MessageToDict(service.asked[0].options) == {"prompt": "def ", "length": 9.0, "temperature": 0.5, "seed": 0.0}
    printed = m1ctl(home, "sample", "first", "-o", "json").stdout.splitlines()
    assert [json.loads(line) for line in printed] == [{"text": "def "}, {"text": "f\x1b[31m"}]
    assert not service.asked[1].options.fields


def test_the_sdk_has_the_same(played: tuple[Played, Home]) -> None:
    service, home = played
    with connect(home.root) as m1:
        assert [result.name for result in m1.results("first")] == list(service.contents)
        assert m1.get_result("first", "confusion").table == CONFUSION
        assert m1.get_result("first", "sample").text.startswith("def f")
        answers = list(m1.use_model("first", "sample", options={"length": 3}))
        assert [answer.row["text"] for answer in answers[1:]] == ["def ", "f\x1b[31m"]
        assert answers[0].checkpoint == "j1@3"
