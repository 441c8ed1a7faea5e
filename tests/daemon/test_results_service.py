"""Results and uses through the API: what a job made beside its weights, and what its model answers."""

from __future__ import annotations

import json
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf.json_format import MessageToDict
from harness import PATIENCE_S, RunningDaemon, StandIn, running_daemon
from m1 import journal
from m1.errors import ExitCode, M1Error, Reason
from m1.jobdir import checkpoint_path, result_path, results_path
from m1.limits import INPUT_BYTES, MOST_INPUTS, MOST_RESULTS, RESULT_BYTES
from m1.paths import Home
from m1.v1 import event_pb2, job_pb2, result_pb2, result_pb2_grpc
from proof import stored_events

FIXTURES = Path(__file__).parents[1] / "fixtures"


class Results:
    """ResultService, as a client of the contract alone asks it."""

    def __init__(self, daemon: RunningDaemon) -> None:
        self._connection = daemon.client.connection
        self._stub = result_pb2_grpc.ResultServiceStub(self._connection.channel)

    def list(self, job: str) -> list[result_pb2.Result]:
        request = result_pb2.ListResultsRequest(job=job)
        return list(self._connection.unary(self._stub.ListResults, request, PATIENCE_S).results)

    def get(self, job: str, name: str) -> tuple[result_pb2.Result, bytes]:
        request = result_pb2.GetResultRequest(job=job, name=name)
        first, *rest = self._connection.stream(self._stub.GetResult, request, PATIENCE_S)
        assert first.HasField("result")
        assert not any(part.HasField("result") for part in rest)
        return first.result, b"".join(part.chunk for part in [first, *rest])

    def table(self, job: str, name: str) -> dict[str, Any]:
        table: dict[str, Any] = json.loads(self.get(job, name)[1])
        return table

    def use(
        self, job: str, use: str = "predict", inputs: Sequence[Path | str] = (), checkpoint: str = "", **options: Any
    ) -> Sequence[result_pb2.UseModelResponse]:
        request = result_pb2.UseModelRequest(job=job, use=use, checkpoint=checkpoint, inputs=map(str, inputs))
        request.options.update(options)
        return list(self._connection.stream(self._stub.UseModel, request, PATIENCE_S))


@pytest.fixture(scope="module")
def finished(data_cache: Path) -> Iterator[RunningDaemon]:
    """A daemon whose job "first" has trained on "few", beside a measurement; no test changes either."""
    with running_daemon(data_cache) as running:
        settings: dict[str, bool | float | str] = {"epochs": 2, "batch_size": 16}
        job = running.client.submit("cifar", data="few", settings=settings, name="first")
        assert running.client.wait(job, timeout_s=PATIENCE_S).state == job_pb2.JOB_STATE_SUCCEEDED, running.log()
        running.client.submit("stress", settings={"duration_s": 1}, name="measured")
        assert running.client.wait("measured", timeout_s=PATIENCE_S).state == job_pb2.JOB_STATE_SUCCEEDED
        yield running


@pytest.fixture
def old(quiet_daemon: RunningDaemon) -> RunningDaemon:
    """A daemon on a home that 0.1.0 wrote."""
    shutil.rmtree(Home(quiet_daemon.home).data)
    with tarfile.open(FIXTURES / "home-0.1.0.tar.xz") as tar:
        tar.extractall(quiet_daemon.home, filter="data")
    quiet_daemon.start()
    return quiet_daemon


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PNG of a handwritten three."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    path = tmp_path_factory.mktemp("pictures") / "three.png"
    Image.fromarray((digits.images[digits.target == 3][0] * 15).astype("uint8")).resize((32, 32)).save(path)
    return path


def test_a_finished_job_lists_its_results_and_gives_them_whole(finished: RunningDaemon) -> None:
    results = Results(finished)
    listed = results.list("first")

    assert {"classes", "confusion", "mistakes"} <= {result.name for result in listed}
    assert [r.create_time.ToNanoseconds() for r in listed] == sorted(r.create_time.ToNanoseconds() for r in listed)
    steps = finished.client.get("first").progress.total_steps
    directory = Home(finished.home).job(finished.client.get("first").id)
    for result in listed:
        told, content = results.get("first", result.name)
        assert told == result
        assert (result.step, result.size_bytes, result.truncated) == (steps, len(content), "")
        form = result_pb2.ResultKind.Name(result.kind).removeprefix("RESULT_KIND_").lower()
        assert content == result_path(directory, result.name, form).read_bytes()
    confusion = results.table("first", "confusion")
    assert sum(row[-1] for row in confusion["rows"]) == 40
    stored = [event for event in stored_events(finished.home) if event.HasField("result_stored")]
    assert {event.result_stored.result.name for event in stored} == {result.name for result in listed}


def test_a_result_that_is_not_there_is_named_with_the_nearest(finished: RunningDaemon) -> None:
    with pytest.raises(M1Error, match=r'has no result "confuson": did you mean "confusion"\?') as caught:
        Results(finished).get("first", "confuson")
    assert (caught.value.reason, caught.value.exit_code) == (Reason.RESULT_NOT_FOUND, ExitCode.NOT_FOUND)
    with pytest.raises(M1Error, match="there is none yet"):
        Results(finished).get("measured", "../../m1d")


def test_a_watcher_of_results_hears_of_each_as_it_is_stored(daemon: RunningDaemon) -> None:
    job = daemon.client.submit("cifar", data="few", settings={"epochs": 1, "batch_size": 32})
    kinds = [event_pb2.EVENT_KIND_RESULT, event_pb2.EVENT_KIND_STATE]
    heard = set()
    for told in daemon.client.watch(job.id, from_revision=1, kinds=kinds):
        heard |= {event.result_stored.result.name for event in told.events if event.HasField("result_stored")}
        if any(event.state_changed.to == job_pb2.JOB_STATE_SUCCEEDED for event in told.events):
            break
    assert heard == {result.name for result in Results(daemon).list(job.id)}


def test_what_0_1_0_said_of_a_test_is_shown_as_tables(old: RunningDaemon) -> None:
    results = Results(old)
    assert {result.name for result in results.list("finished")} == {"classes", "confusion"}
    confusion = results.table("finished", "confusion")
    assert [column["name"] for column in confusion["columns"]] == ["true", "predicted", "count"]
    assert confusion["pivot"] == ["true", "predicted", "count"]
    assert all(count > 0 for _, _, count in confusion["rows"])
    total = sum(count for _, _, count in confusion["rows"])
    right = sum(count for true, predicted, count in confusion["rows"] if true == predicted)
    assert right / total == pytest.approx(old.client.get("finished").latest_metrics["test/accuracy"])
    classes = results.table("finished", "classes")
    assert [(column["name"], column["unit"]) for column in classes["columns"]][1] == ("accuracy", "fraction")
    assert results.list("paused") == []


def test_a_class_is_named_for_a_picture(finished: RunningDaemon, picture: Path) -> None:
    first, *answers = Results(finished).use("first", inputs=[picture], top=2)

    best = [checkpoint for checkpoint in finished.client.list_checkpoints("first") if checkpoint.best]
    assert (first.checkpoint, first.HasField("row")) == (best[0].id, False)
    rows = [MessageToDict(answer.row) for answer in answers]
    assert [row["file"] for row in rows] == [str(picture)] * 2
    assert {row["class"] for row in rows} <= {str(digit) for digit in range(10)}
    assert rows[0]["probability"] >= rows[1]["probability"] > 0
    assert [path.name for path in Home(finished.home).cache.glob("use-*")] == []


def test_a_checkpoint_that_is_named_answers(finished: RunningDaemon, picture: Path) -> None:
    oldest = list(finished.client.list_checkpoints("first"))[-1]
    assert Results(finished).use("", inputs=[picture], checkpoint=oldest.id)[0].checkpoint == oldest.id


def test_a_model_of_0_1_0_names_a_class_for_a_picture(old: RunningDaemon, picture: Path) -> None:
    first, answer, *_ = Results(old).use("paused", inputs=[picture])
    assert first.checkpoint == old.client.get_checkpoint("paused@135").id
    assert answer.row["class"] in {str(digit) for digit in range(10)}


@pytest.mark.parametrize(
    ("asked", "reason", "sentence"),
    [
        ({"use": "predit"}, Reason.INVALID_ARGUMENT, 'the recipe "cifar" has no use "predit": did you mean "predict"?'),
        ({"top": 0}, Reason.INVALID_SETTING, 'the option top="0" is out of bounds'),
        ({"tops": 1}, Reason.INVALID_SETTING, 'there is no option "tops": did you mean "top"?'),
        ({"inputs": []}, Reason.INVALID_ARGUMENT, "predict takes files, and none is named"),
        ({"inputs": ["/nowhere/a.png"]}, Reason.FILE_NOT_FOUND, 'file "/nowhere/a.png" does not exist'),
        ({"inputs": ["a.png"]}, Reason.INVALID_ARGUMENT, 'the input "a.png" is not an absolute path'),
        ({"inputs": ["/"]}, Reason.INVALID_ARGUMENT, '"/" is a directory'),
        ({"inputs": ["/dev/null"]}, Reason.INVALID_ARGUMENT, '"/dev/null" is not a regular file'),
        ({"inputs": ["/a\0b"]}, Reason.INVALID_ARGUMENT, "cannot be read"),
        ({"inputs": ["/a"] * (MOST_INPUTS + 1)}, Reason.TOO_LARGE, "are too many for one call"),
        ({"inputs": ["/" + "a" * INPUT_BYTES]}, Reason.TOO_LARGE, "are too many for one call"),
        ({"job": "nobody"}, Reason.JOB_NOT_FOUND, 'there is no job "nobody"'),
        ({"job": "measured"}, Reason.WRONG_STATE, "it is a measurement, and only a training makes one"),
        ({"checkpoint": "first@7777"}, Reason.CHECKPOINT_NOT_FOUND, 'there is no checkpoint "first@7777"'),
        ({"job": "measured", "checkpoint": "first@{step}"}, Reason.INVALID_ARGUMENT, "is of first"),
    ],
)
def test_a_question_that_cannot_be_answered_gets_one_sentence(
    finished: RunningDaemon, picture: Path, asked: dict[str, Any], reason: Reason, sentence: str
) -> None:
    step = next(finished.client.list_checkpoints("first")).step
    question = {"job": "first", "inputs": [picture], **asked}
    if "checkpoint" in question:
        question["checkpoint"] = question["checkpoint"].format(step=step)
    with pytest.raises(M1Error) as caught:
        Results(finished).use(**question)
    assert caught.value.reason is reason
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_own_recipe_says_itself_what_it_cannot_be_asked(old: RunningDaemon, picture: Path) -> None:
    with pytest.raises(M1Error, match='has no use "sample": it has predict') as caught:
        Results(old).use("paused", "sample")
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    with pytest.raises(M1Error, match='the option top="0" is out of bounds') as caught:
        Results(old).use("paused", inputs=[picture], top=0)
    assert caught.value.field == "options.top"
    with pytest.raises(M1Error, match='has no use "--help"'):
        Results(old).use("paused", "--help")


def test_a_deleted_job_has_neither_results_nor_a_model(old: RunningDaemon, picture: Path) -> None:
    results, directory = Results(old), Home(old.home).job(old.client.get("finished").id)
    old.client.delete("finished")
    assert not directory.exists()
    asked: tuple[Callable[[], object], ...] = (
        lambda: results.list("finished"),
        lambda: results.use("finished", inputs=[picture]),
    )
    for ask in asked:
        with pytest.raises(M1Error, match='there is no job "finished"') as caught:
            ask()
        assert caught.value.reason is Reason.JOB_NOT_FOUND


def test_a_checkpoint_whose_files_are_damaged_is_said_to_be(daemon: RunningDaemon, picture: Path) -> None:
    job = daemon.client.submit("cifar", data="few", settings={"epochs": 1, "batch_size": 32})
    assert daemon.client.wait(job, timeout_s=PATIENCE_S).state == job_pb2.JOB_STATE_SUCCEEDED
    newest = next(daemon.client.list_checkpoints(job.id))
    weights = checkpoint_path(Home(daemon.home).job(job.id), newest.step) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(M1Error, match="is damaged") as caught:
        Results(daemon).use("", inputs=[picture], checkpoint=newest.id)
    assert caught.value.reason is Reason.BAD_CHECKPOINT


def test_a_held_job_answers_and_a_call_that_is_cancelled_leaves_no_process(
    held_daemon: RunningDaemon, picture: Path
) -> None:
    results = Results(held_daemon)
    with pytest.raises(M1Error, match="m1ctl checkpoint holder makes one") as caught:
        results.use("holder", inputs=[picture])
    assert caught.value.reason is Reason.WRONG_STATE
    made = held_daemon.client.create_checkpoint("holder", timeout_s=PATIENCE_S)
    assert held_daemon.process is not None
    daemon_process = psutil.Process(held_daemon.process.pid)
    stub = result_pb2_grpc.ResultServiceStub(held_daemon.client.connection.channel)
    request = result_pb2.UseModelRequest(job="holder", use="predict", inputs=[str(picture)])
    call = stub.UseModel(request, timeout=PATIENCE_S)
    assert next(call).checkpoint == made.id

    (tool,) = _until(lambda: [child for child in daemon_process.children() if _is_tool(child)])
    _until(lambda: tool.nice() == 19)  # set when it has been started
    call.cancel()
    with pytest.raises(grpc.RpcError):
        list(call)
    _until(lambda: not tool.is_running())
    assert held_daemon.client.get("holder").state == job_pb2.JOB_STATE_HELD
    assert results.use("holder", inputs=[picture])[1].row["file"] == str(picture)


def test_a_process_that_is_killed_is_told_of(finished: RunningDaemon, picture: Path) -> None:
    assert finished.process is not None
    daemon_process = psutil.Process(finished.process.pid)
    stub = result_pb2_grpc.ResultServiceStub(finished.client.connection.channel)
    request = result_pb2.UseModelRequest(job="first", use="predict", inputs=[str(picture)])
    call = stub.UseModel(request, timeout=PATIENCE_S)
    next(call)
    (tool,) = _until(lambda: [child for child in daemon_process.children() if _is_tool(child)])
    tool.kill()
    with pytest.raises(grpc.RpcError, match="the process of predict ended before it had answered \\(SIGKILL\\)"):
        list(call)


def test_the_results_of_many_classes_leave_the_jobs_message_small(
    held_daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "RECORD_BYTES", journal.MAX_PAYLOAD_BYTES)  # as 0.1.0 wrote
    job = held_daemon.client.get("holder")
    before = job.ByteSize()
    directory = Home(held_daemon.home).job(job.id)
    stand_in = StandIn(held_daemon, job)
    rows = [[f"class {number} of four thousand", number / 4000, 12] for number in range(4000)]
    columns = [{"name": name, "unit": ""} for name in ("class", "accuracy", "images")]
    pad = " " * (3 * 2**20)  # more than a message may have
    content = json.dumps({"columns": columns, "rows": rows}).encode() + pad.encode()
    results_path(directory).mkdir(exist_ok=True)
    result_path(directory, "classes", "table").write_bytes(content)
    said = journal.Result("classes", "table", "Each class.", 12, len(content), time.time())
    stand_in.journal.append(said)
    names = [f"class-{number}" for number in range(800)]
    counts = [[12 * (true == predicted) for predicted in range(800)] for true in range(800)]
    stand_in.journal.append(journal.Report(names, [1.0] * 800, counts))
    stand_in.journal.append(journal.Continued(0))
    held_daemon.start()
    held_daemon.client.wait(job.id, until={job_pb2.JOB_STATE_RUNNING}, timeout_s=PATIENCE_S)

    results = Results(held_daemon)
    assert held_daemon.client.get(job.id).ByteSize() < before + 200
    assert {result.name for result in results.list(job.id)} == {"classes", "confusion"}
    assert results.get(job.id, "classes")[1] == content
    assert len(results.table(job.id, "confusion")["rows"]) == 800  # as a process of 0.1.0 says it
    stand_in.leave()


def test_results_are_bounded_and_what_is_not_listed_is_said(held_daemon: RunningDaemon) -> None:
    job = held_daemon.client.get("holder")
    stand_in = StandIn(held_daemon, job)
    stand_in.journal.append(journal.Result("large", "image", "Too large.", 1, RESULT_BYTES + 1, 1.0))
    stand_in.journal.append(journal.Result("../up", "text", "No name.", 1, 1, 1.0))
    for number in range(MOST_RESULTS + 2):
        stand_in.journal.append(journal.Result(f"n{number}", "text", "One.", number, 1, 100.0 + number))
    stand_in.journal.append(journal.Result("n60", "text", "Newer.", 99, 1, 500.0))
    stand_in.journal.append(journal.Continued(0))
    held_daemon.start()
    held_daemon.client.wait(job.id, until={job_pb2.JOB_STATE_RUNNING}, timeout_s=PATIENCE_S)

    listed = Results(held_daemon).list(job.id)
    assert len(listed) == MOST_RESULTS
    assert (listed[0].name, listed[-1].name, listed[-1].title) == ("n2", "n60", "Newer.")
    told = [event.notice_raised.message for event in stored_events(held_daemon.home)]
    assert any('the result "large" is not listed' in message for message in told)
    assert any('the result "../up" is not listed' in message for message in told)
    with pytest.raises(M1Error, match='the file of the result "n60" cannot be read') as caught:
        Results(held_daemon).get(job.id, "n60")
    assert caught.value.reason is Reason.RESULT_NOT_FOUND
    stand_in.leave()


def _is_tool(process: psutil.Process) -> bool:
    return process.cmdline()[3:5] == ["m1train", "use"]


def _until(condition: Any) -> Any:
    """What the condition gives, once it gives something."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("it did not come to be")
