"""What grows with a user's work is bounded in bytes where it is kept, sent and shown, and nothing is lost by that."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from harness import PATIENCE_S, RunningDaemon
from m1.endpoint import MAX_MESSAGE_BYTES
from m1.errors import ExitCode, M1Error, Reason
from m1.journal import (
    Approximate,
    Entry,
    Exited,
    JournalWriter,
    Metrics,
    Notice,
    Record,
    RecordTooLargeError,
    read_journal,
)
from m1.limits import METRIC_NAME_BYTES, MOST_METRICS, PAGE, PAGE_BYTES, RECORD_BYTES, SENTENCE_CHARACTERS
from m1.paths import Home
from m1.process.journal import Journal
from m1.spec import JobSpec
from m1.v1 import event_pb2, job_pb2
from m1d.api.paging import fitting
from m1d.events.emit import tell_state
from m1d.events.follow import BATCH_EVENTS, batches
from m1d.events.translate import job_to_proto
from m1d.home.home import open_home
from m1d.jobs.job import Checkpoint, Job
from m1d.jobs.states import JobState
from m1d.running.ingest import ingest
from m1d.store import Store

# A job of this size is the largest that ingest lets come into being, and 130 of them are six messages of gRPC's limit.
LARGE = {f"{number:04}" + "x" * (METRIC_NAME_BYTES - 4): 0.5 for number in range(MOST_METRICS)}
JOBS = 130


def job_of(name: str, **fields: object) -> Job:
    made = {"number": 0, "spec": JobSpec(recipe="cifar", data="few"), "position": 1, "create_time": 0.0}
    return Job(name=name, **(made | fields))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    """A daemon with 130 ended jobs of a thousand metrics each, and 30 checkpoints of the first that name them all."""
    home = empty_home()
    with closing(Store(home.database)) as store, store.transaction() as tx:
        for number in range(JOBS):
            ended = {"state": JobState.SUCCEEDED, "times": {"SUCCEEDED": 1.0}, "latest": LARGE}
            job = tx.insert_job(job_of(f"n{number}", **ended))
            tell_state(tx, job, 1.0, job_pb2.JOB_STATE_RUNNING)
        for step in range(30):
            tx.put_checkpoint(Checkpoint(1, step, 0, 1, 0.0, "0" * 64, best=False, metrics=LARGE))
    running = RunningDaemon(home.root)
    try:
        running.start()
        yield running
    finally:
        running.end()


def empty_home() -> Home:
    home = Home(Path(tempfile.mkdtemp(prefix="m1-", dir="/tmp")))
    os.close(open_home(home))
    return home


def test_the_fixture_is_more_than_one_message_can_hold(daemon: RunningDaemon) -> None:
    one = daemon.client.get("n0").ByteSize()
    assert JOBS * one > 6 * MAX_MESSAGE_BYTES
    assert one < MAX_MESSAGE_BYTES / 4


def test_large_jobs_are_listed_shown_and_watched(daemon: RunningDaemon) -> None:
    listed = daemon.m1ctl("list", "-o", "json")
    assert listed.returncode == 0, listed.stderr
    assert [job["name"] for job in json.loads(listed.stdout)["jobs"]] == [f"n{JOBS - 1 - k}" for k in range(PAGE)]
    text = daemon.m1ctl("list", "--all")
    assert (text.returncode, len(text.stdout.splitlines())) == (0, JOBS + 1), text.stderr
    for command in (("show", "n7"), ("watch", "n7"), ("watch", "n7", "-o", "json"), ("metrics", "n7")):
        done = daemon.m1ctl(*command)
        assert done.returncode == 0, (command, done.stderr)
    assert [checkpoint.step for checkpoint in daemon.client.list_checkpoints("n0")] == list(range(29, -1, -1))


def test_a_watch_from_the_beginning_tells_every_large_job_once(daemon: RunningDaemon) -> None:
    upto = daemon.client.system_info().revision
    told: list[str] = []
    for response in daemon.client.watch(from_revision=1, kinds=[event_pb2.EVENT_KIND_STATE], timeout_s=PATIENCE_S):
        told += [event.job_id for event in response.events]
        if response.cursor >= upto:
            break
    assert told == [f"j{number + 1}" for number in range(JOBS)]


def test_a_request_that_is_too_large_is_no_wrong_usage(daemon: RunningDaemon) -> None:
    with pytest.raises(M1Error) as caught:
        daemon.client.submit("cifar", data="x" * MAX_MESSAGE_BYTES)
    assert (caught.value.reason, caught.value.exit_code) == (Reason.MESSAGE_TOO_LARGE, ExitCode.ERROR)
    with pytest.raises(M1Error, match="the settings have") as caught:
        daemon.client.submit("photos", settings={"init": "/" + "x" * 2**19})
    assert caught.value.field == "spec.settings"


# Pages and parts


def sized(*sizes: int) -> list[event_pb2.Event]:
    return [event_pb2.Event(job_id="x" * size) for size in sizes]


def test_a_page_ends_at_its_number_or_at_its_bytes_and_is_never_empty() -> None:
    assert len(fitting(sized(*[10] * 9), 4)) == 4
    assert len(fitting(sized(*[400] * 9), 9, most_bytes=1000)) == 2
    assert len(fitting(sized(5000, 10), 9, most_bytes=1000)) == 1
    assert fitting([], 9) == []


def test_events_come_in_parts_of_bounded_bytes_in_order() -> None:
    events = sized(*[10] * 1200, 3 * PAGE_BYTES, *[PAGE_BYTES // 3] * 7)
    parts = batches(events)
    assert [event for part in parts for event in part] == events
    assert all(len(part) <= BATCH_EVENTS for part in parts)
    assert all(len(part) == 1 or sum(event.ByteSize() for event in part) <= PAGE_BYTES for part in parts)
    assert len(parts) == 3 + 1 + 4
    assert batches([]) == []


# The journal


def test_a_record_that_no_reader_takes_is_not_written(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path / "journal-1")
    with pytest.raises(RecordTooLargeError, match=r"\(notice\) of 1,0\d\d,\d\d\d bytes is too large"):
        writer.append(Notice("info", "x" * RECORD_BYTES))
    assert (tmp_path / "journal-1").read_bytes() == b""


def test_a_training_goes_on_without_a_record_that_is_too_large_and_says_so(tmp_path: Path) -> None:
    journal = Journal(JournalWriter(tmp_path / "journal-1"))
    journal.append(Metrics(1, 0, {"x" * RECORD_BYTES: 1.0}))
    journal.append(Metrics(2, 0, {"train/loss": 1.0}))
    journal.leave(Exited("failed", "INTERNAL", "y" * RECORD_BYTES, "z"), stay=lambda: False)
    left_out, kept, exited = (entry.record for entry in read_journal(tmp_path / "journal-1", 0))
    assert isinstance(left_out, Notice)
    assert "a record (metrics)" in left_out.message
    assert left_out.message.endswith("it was left out")
    assert kept == Metrics(2, 0, {"train/loss": 1.0})
    assert exited == Exited("failed", "INTERNAL", "y" * (SENTENCE_CHARACTERS - 3) + "...", "z")


# What is stored of it


def taken_in(store: Store, job: Job, *records: Record) -> Job:
    return ingest(store, job, [Entry(record, 1.0, k) for k, record in enumerate(records)])


def notices(store: Store) -> Sequence[str]:
    kinds = [event_pb2.EVENT_KIND_NOTICE]
    events, _ = store.events(0, store.revision, job=None, kinds=kinds, limit=100)
    return [event.notice_raised.message for event in events]


def test_what_a_foreign_journal_says_without_bound_makes_no_job_that_cannot_be_sent(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "db")) as store:
        with store.transaction() as tx:
            job = tx.insert_job(job_of("a"))
        for step in range(1, 4):
            values = {f"val/{step}-{k}": 0.0 for k in range(800)}
            job = taken_in(store, job, Metrics(step, 0, values, of_step=False))
        assert len(job.latest) == MOST_METRICS == len(store.metric_names(job.number))
        job = taken_in(store, job, Metrics(4, 0, {"val/0": 1.0, "v" * (METRIC_NAME_BYTES + 1): 1.0}, of_step=False))
        words = notices(store)
        assert [words_.partition(" metrics")[0] for words_ in words] == ["600", "800", "2"]
        job = taken_in(store, job, Approximate([f"{k}" + "x" * 10_000 for k in range(500)]))
        job = taken_in(store, job, Notice("info", "n" * 100_000), Exited("failed", "X", "m" * 10**6, "h" * 10**6))
        assert max(len(words_) for words_ in notices(store)[len(words) + 1 :]) == SENTENCE_CHARACTERS
        assert job_to_proto(replace(job, reason=job.attempt.exited.message), 1).ByteSize() < PAGE_BYTES  # type: ignore[union-attr]
        sizes = [event.ByteSize() for event in store.events(0, store.revision, job=1, kinds=range(1, 8), limit=99)[0]]
        assert max(sizes) < PAGE_BYTES
