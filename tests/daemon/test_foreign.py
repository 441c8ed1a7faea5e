"""What does not belong where it lies: journals, specs and checkpoints of others, and content of a wrong kind.

The daemon stays up, one sentence names the file, and the job ends with the bits that it would have had.
"""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from harness import PATIENCE_S, RunningDaemon, running_daemon
from m1.errors import M1Error, Reason
from m1.jobdir import read_desired, read_spec, spec_path
from m1.journal import Held, JournalDamagedError, JournalWriter, Started, journal_path, read_journal
from m1.v1 import event_pb2, job_pb2
from proof import submit

RUNNING, HELD, PAUSED = job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_HELD, job_pb2.JOB_STATE_PAUSED
SUCCEEDED = job_pb2.JOB_STATE_SUCCEEDED
SHORT: dict[str, bool | float | str] = {"epochs": 3, "batch_size": 12, "seed": 7}
OTHER = SHORT | {"seed": 8}


def frame(content: bytes) -> bytes:
    """A whole record of a journal, whatever its content."""
    return struct.pack("<II", len(content), zlib.crc32(content)) + content


def record(kind: str, **fields: object) -> bytes:
    """A whole record, of fields that need not be what is declared."""
    return frame(json.dumps({"kind": kind, "time": 1.0, "record": fields}).encode())


WRONG = {
    "a step of another kind": record("metrics", step="5", epoch=0, values={}),
    "a step that is not a whole number": record("held", step=1.5),
    "a negative step": record("held", step=-1),
    "a step that no counter holds": record("held", step=2**32),
    "a number of 400 digits": record("metrics", step=1, epoch=0, values={"a": 10**400}),
    "values that are a list": record("metrics", step=1, epoch=0, values=[1.0]),
    "a value that is true": record("metrics", step=1, epoch=0, values={"a": True}),
    "a missing field": record("plan", step=1),
    "a text that cannot be sent": record("notice", severity="info", message="\ud800"),
    "a severity that there is not": record("notice", severity="deadly", message="m"),
    "a kind that there is not": record("dance"),
    "a kind that is a list": frame(b'{"kind": [], "time": 1, "record": {}}'),
    "a record that is a list": frame(b'{"kind": "held", "time": 1, "record": [1]}'),
    "a time that is none": frame(b'{"kind": "held", "time": NaN, "record": {"step": 1}}'),
    "a time in the far future": frame(b'{"kind": "held", "time": 1e300, "record": {"step": 1}}'),
    "a list": frame(b"[]"),
    "no JSON": frame(b"\xff"),
    "nested too deeply": frame(b"[" * 200_000),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_record_of_a_wrong_kind_is_damage_with_the_file_and_the_byte(tmp_path: Path, what: str) -> None:
    path = journal_path(tmp_path, 1)
    writer = JournalWriter(path)
    writer.append(Started(1, None))
    good = path.stat().st_size
    path.write_bytes(path.read_bytes() + WRONG[what])
    entries = read_journal(path, 0)
    assert next(entries).record == Started(1, None)
    with pytest.raises(JournalDamagedError, match=f"is damaged at byte {good}") as caught:
        next(entries)
    assert str(path) in str(caught.value)


def test_a_journal_that_is_cut_at_any_byte_is_read_up_to_its_last_whole_record(tmp_path: Path) -> None:
    path = journal_path(tmp_path, 1)
    writer = JournalWriter(path)
    for step in range(3):
        writer.append(Held(step))
    whole = path.read_bytes()
    ends = [entry.next_offset for entry in read_journal(path, 0)]
    assert ends[-1] == len(whole)
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        assert [entry.record for entry in read_journal(path, 0)] == [Held(k) for k in range(3) if ends[k] <= cut]


def test_a_journal_in_another_s_place_is_damaged_at_its_first_byte(tmp_path: Path) -> None:
    JournalWriter(journal_path(tmp_path, 1)).append(Started(1, None))
    journal_path(tmp_path, 1).rename(journal_path(tmp_path, 2))
    with pytest.raises(JournalDamagedError, match=f"at byte 0: .*it is the journal {tmp_path.name}/journal-1"):
        next(read_journal(journal_path(tmp_path, 2), 0))


def test_a_journal_that_became_shorter_than_what_was_read_is_damaged(tmp_path: Path) -> None:
    path = journal_path(tmp_path, 1)
    JournalWriter(path).append(Started(1, None))
    size = path.stat().st_size
    assert list(read_journal(path, size)) == []
    with pytest.raises(JournalDamagedError, match=f"it ends there, and {size + 1} bytes"):
        next(read_journal(path, size + 1))


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"5",
        b'{"want": "run", "checkpoint": "1"}',
        b'{"want": "dance", "checkpoint": 1}',
        b'{"want": "run", "checkpoint": 1e999}',
        b'{"want": [], "checkpoint": 1}',
        b"[" * 200_000,
        b"\xff",
    ],
)
def test_a_desired_state_or_a_spec_that_is_none_is_said_to_be(tmp_path: Path, content: bytes) -> None:
    for name, read in (("desired.json", read_desired), ("spec.json", read_spec)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            read(tmp_path)


@pytest.fixture(scope="module")
def expected(data_cache: Path) -> Iterator[str]:
    """The weights of a job with the settings SHORT that nobody touches."""
    with running_daemon(data_cache) as daemon:
        job = daemon.client.wait(submit(daemon.client, "untouched", SHORT), timeout_s=PATIENCE_S)
        assert job.state == SUCCEEDED
        yield next(daemon.client.list_checkpoints(job.id)).weights_sha256


def notices(daemon: RunningDaemon, job: str) -> list[str]:
    """Every notice of a job, up to now."""
    upto, found = daemon.client.system_info().revision, []
    for response in daemon.client.watch(
        job, from_revision=1, kinds=[event_pb2.EVENT_KIND_NOTICE, event_pb2.EVENT_KIND_STATE], timeout_s=PATIENCE_S
    ):
        found += [event.notice_raised.message for event in response.events if event.HasField("notice_raised")]
        if response.cursor >= upto:
            break
    return found


JOURNALS: dict[str, Callable[[Path, Path], object]] = {
    "of another job": lambda journal, other: journal.write_bytes(other.read_bytes()),
    "shorter than what was taken in": lambda journal, _: journal.write_bytes(journal.read_bytes()[:200]),
    "with a record of a wrong kind": lambda journal, _: journal.write_bytes(
        journal.read_bytes() + WRONG["a step that no counter holds"]
    ),
}


@pytest.mark.parametrize("what", JOURNALS)
def test_a_journal_that_was_replaced_while_no_daemon_lived_is_told_and_the_bits_are_the_same(
    daemon: RunningDaemon, expected: str, what: str
) -> None:
    other = daemon.client.wait(submit(daemon.client, "other", OTHER), timeout_s=PATIENCE_S)
    job = submit(daemon.client, "job", SHORT)
    daemon.client.wait(job, until={RUNNING}, timeout_s=PATIENCE_S)
    job = daemon.client.pause(job.id, hold=True)
    job = daemon.client.wait(job, until={HELD}, timeout_s=PATIENCE_S)
    daemon.kill()
    process = psutil.Process(job.pid)
    process.kill()
    process.wait(PATIENCE_S)
    journal = journal_path(daemon.home / "jobs" / job.id, 1)
    JOURNALS[what](journal, journal_path(daemon.home / "jobs" / other.id, 1))
    daemon.start()
    daemon.client.wait(daemon.client.get(job.id), until={RUNNING}, timeout_s=PATIENCE_S)
    daemon.client.resume(job.id)
    ended = daemon.client.wait(daemon.client.get(job.id), timeout_s=PATIENCE_S)
    assert (ended.state, ended.attempt) == (SUCCEEDED, 2)
    assert next(daemon.client.list_checkpoints(job.id)).weights_sha256 == expected
    (told,) = [message for message in notices(daemon, job.id) if "is damaged at byte" in message]
    assert f'the journal "{journal}"' in told
    assert (f"it is the journal {other.id}/journal-1" in told) == (what == "of another job")


@pytest.mark.parametrize("what", ["of another job", "no JSON"])
def test_a_spec_that_is_not_the_job_s_is_written_anew_and_the_bits_are_the_same(
    held_daemon: RunningDaemon, expected: str, what: str
) -> None:
    client = held_daemon.client
    holder = held_daemon.home / "jobs" / client.get("holder").id
    job = submit(client, "job", SHORT)
    directory = held_daemon.home / "jobs" / job.id
    directory.mkdir(mode=0o700)
    if what == "of another job":
        shutil.copy(spec_path(holder), spec_path(directory))
    else:
        spec_path(directory).write_bytes(b'{"job_id": NaN')
    client.cancel("holder")
    ended = client.wait(job, timeout_s=PATIENCE_S)
    assert ended.state == SUCCEEDED
    assert next(client.list_checkpoints(job.id)).weights_sha256 == expected
    assert read_spec(directory).settings["seed"] == SHORT["seed"]
    assert [message for message in notices(held_daemon, job.id) if f'"{spec_path(directory)}" was not' in message]


@pytest.mark.parametrize(
    "state",
    [
        b"[]",
        b'{"step": NaN}',
        b'{"step": 1e999}',
        b'{"step": -1}',
        b'{"step": true}',
        b'{"step": 1, "job": []}',
        b'{"step": 1, "job": {"settings": 5}}',
        b'{"step": 1, "job": {"settings": {"lr": NaN}}}',
        b'{"step": 1, "job": {"profile": 5}}',
        b'{"step": 1, "job": {"recipe": ["cifar"]}}',
        b"[" * 200_000,
        b"\xff",
    ],
)
def test_a_checkpoint_to_begin_with_that_says_nonsense_is_refused_in_one_sentence(
    long_daemon: RunningDaemon, tmp_path: Path, state: bytes
) -> None:
    (tmp_path / "state.json").write_bytes(state)
    with pytest.raises(M1Error) as caught:
        submit(long_daemon.client, "", SHORT, from_checkpoint=str(tmp_path))
    assert caught.value.reason is not Reason.INTERNAL
    assert "\n" not in str(caught.value)
    assert list(long_daemon.client.list_jobs()) == []


@pytest.fixture(scope="module")
def long_daemon(data_cache: Path) -> Iterator[RunningDaemon]:
    """One daemon for many refusals."""
    with running_daemon(data_cache) as daemon:
        yield daemon
