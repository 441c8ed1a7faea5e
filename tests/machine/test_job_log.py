"""A job's log: bounded while others append to it, read by offsets that stay, by lines and by time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from m1 import job_log
from m1.errors import ExitCode, M1Error
from m1.job_log import LOG_BYTES, Bounding, LogPart, look, read, since, tail
from m1ctl.sdk.times import moment

MOST = 1000
FLOOD = """
import os
block = 4000
for first in range(0, 3_000_000, block):
    os.write(1, b"".join(b"line %08d\\n" % number for number in range(first, first + block)))
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def printed(log: Path, text: str, now: float = 0.0) -> None:
    """Append as a process does, and look as who runs it does."""
    with open(log, "a") as file:
        file.write(text)
    look(log, lambda: now, MOST)


def lines(first: int, end: int) -> str:
    return "".join(f"line {number:04}\n" for number in range(first, end))


def test_a_process_that_prints_without_end_leaves_its_newest_lines_and_no_more(log: Path) -> None:
    with open(log, "ab") as file, Bounding(log):
        subprocess.run([sys.executable, "-c", FLOOD], stdout=file, check=True)
    newest, older = log.read_bytes(), log.with_name("log.1").read_bytes()
    assert len(newest) <= LOG_BYTES
    assert LOG_BYTES // 2 < len(older) < 3 * LOG_BYTES
    assert re.fullmatch(rb"m1d: \d+ bytes of older output were dropped", older.splitlines()[0])
    numbers = [int(line.split()[1]) for line in older.splitlines()[1:]]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert {path.name for path in log.parent.iterdir()} == {"log", "log.1", "log.marks"}
    assert not any(path.stat().st_mode & 0o077 for path in log.parent.glob("log.*"))


def test_a_reader_that_goes_on_from_its_offset_reads_every_line_once_however_often_the_log_is_cut(log: Path) -> None:
    seen, offset = b"", 0
    for first in range(0, 1000, 50):
        printed(log, lines(first, first + 50))
        while (part := read(log, offset, 300)).content:
            assert part.offset == offset
            seen, offset = seen + part.content, part.next_offset
    assert seen.decode() == lines(0, 1000)
    assert offset == 1000 * len(lines(0, 1))
    assert log.stat().st_size + log.with_name("log.1").stat().st_size < 3 * MOST


def test_an_offset_that_is_kept_no_longer_goes_on_at_the_first_whole_line_that_is(log: Path) -> None:
    for first in range(0, 1000, 50):
        printed(log, lines(first, first + 50))
    part = read(log, 0, 10**6)
    text = part.content.decode()
    first = int(text[5:9])
    assert text == lines(first, 1000)
    assert part.offset == first * 10
    assert 0 < first <= 1000 - 2 * 50
    assert read(log, part.next_offset, 10) == LogPart(b"", part.next_offset)


def test_what_came_while_the_log_was_copied_is_kept_and_what_was_too_much_is_said(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def rename_and_print(source: str, target: str) -> None:
        rename(source, target)
        with open(log, "a") as file:
            file.write(late)

    monkeypatch.setattr("m1.job_log.os.rename", rename_and_print)
    late = "just in time\n"
    printed(log, lines(0, 200))
    assert log.read_text() == ""
    assert read(log, 0, 10**6).content.decode() == lines(101, 200) + late
    late = "x" * 3 * MOST
    printed(log, lines(200, 400))
    assert log.read_text() == f"m1d: {2 * MOST} bytes of output were dropped here: they could not be kept\n"


def test_a_thread_of_the_process_that_cuts_loses_no_line_however_fast_it_prints(log: Path) -> None:
    number, cuts = 0, 0
    done = threading.Event()

    def cut() -> None:
        nonlocal cuts
        while not done.is_set():
            cuts += look(log, most_bytes=2**16) < job_log.LOOK_S

    cutting = threading.Thread(target=cut)
    seen, offset = b"", 0
    with open(log, "ab", buffering=0) as file:
        cutting.start()
        while cuts < 20:
            for number in range(number, number + 100):  # noqa: B020 - it goes on
                file.write(b"line %08d\n" % number)
            number += 1
            part = read(log, offset, 10**7)
            assert part.offset == offset
            seen, offset = seen + part.content, part.next_offset
        done.set()
        cutting.join()
    part = read(log, offset, 10**7)
    assert seen + part.content == b"".join(b"line %08d\n" % k for k in range(number))


@pytest.mark.parametrize("text", ["", "a\n", "a\nb\nc\n", "a\nb\nc", "\n\n\n", "x" * 200_000 + "\ny\n" + "z" * 70_000])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 100])
def test_the_tail_is_the_last_lines(log: Path, text: str, count: int) -> None:
    log.write_text(text)
    wanted = text.splitlines(keepends=True)
    assert text[tail(log, count) :] == "".join(wanted[len(wanted) - count if count < len(wanted) else 0 :])


def test_a_tail_reaches_into_the_older_part(log: Path) -> None:
    printed(log, lines(0, 110))
    printed(log, lines(110, 120))
    assert log.read_text() == lines(110, 120)
    assert read(log, tail(log, 40), 10**6).content.decode() == lines(80, 120)
    assert tail(log, 10**6) == read(log, 0, 1).offset > 0


def test_since_a_time_is_all_that_was_printed_since_and_little_more(log: Path) -> None:
    for minute in range(20):
        printed(log, lines(minute * 10, minute * 10 + 10), now=60.0 * minute)
    for seconds, first in ((60.0 * 18, 190), (60.0 * 17 + 30, 180), (60.0 * 15, 160)):
        assert read(log, since(log, seconds), 10**6).content.decode() == lines(first, 200), seconds
    assert since(log, -1.0) == read(log, 0, 1).offset
    assert since(log, log.stat().st_mtime + 60) == 2000, "nothing was printed since"


def test_a_line_that_had_begun_before_the_time_is_shown_whole(log: Path) -> None:
    printed(log, "first\nsecond begins", now=100.0)
    printed(log, " and ends\n", now=200.0)
    assert read(log, since(log, 150.0), 100).content == b"second begins and ends\n"


def test_marks_become_fewer_and_since_stays_true(log: Path) -> None:
    for second in range(9000):
        with open(log, "a") as file:
            file.write(".\n")
        look(log, lambda now=2.0 * second: now)  # type: ignore[misc]
    assert log.with_name("log.marks").stat().st_size < 2**17 + 64
    for second in (0, 100, 1001, 5000, 8999):
        early = second - since(log, 2.0 * second) // 2
        assert -1 <= early <= 16, second


def test_what_is_no_log_is_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    look(tmp_path / "fifo")
    look(tmp_path / "nothing")
    assert read(tmp_path / "nothing", 7, 10) == LogPart(b"", 7)
    assert tail(tmp_path / "nothing", 5) == since(tmp_path / "nothing", 0.0) == 0
    (tmp_path / "log").write_text("ours\n")
    (tmp_path / "log.1").write_text("somebody else's\n")
    assert read(tmp_path / "log", 0, 100).content == b"ours\n"


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if os.geteuid() or sys.platform != "linux" or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def test_on_a_full_disk_the_log_is_cut_all_the_same(small_disk: Path) -> None:
    log = small_disk / "log"
    with pytest.raises(OSError, match="No space"):
        log.write_text("line\n" * 10**6)
    size = log.stat().st_size
    look(log, most_bytes=size // 2)
    assert log.read_text() == ""
    kept = read(log, 0, 10**6)
    assert (kept.next_offset, len(kept.content)) == (size, size // 2), "there was room for it once the log was empty"
    with open(log, "a") as file:
        file.write("there is space\n")
    assert read(log, 0, 10**6).content.endswith(b"there is space\n")


# Times as they are typed

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("90s", datetime(2026, 3, 1, 9, 58, 30, tzinfo=UTC)),
        ("2h30m", datetime(2026, 3, 1, 7, 30, tzinfo=UTC)),
        ("1.5h", datetime(2026, 3, 1, 8, 30, tzinfo=UTC)),
        ("2026-03-01T11:00", datetime(2026, 3, 1, 9, tzinfo=UTC)),
        ("2026-03-01T11:00Z", datetime(2026, 3, 1, 11, tzinfo=UTC)),
    ],
)
def test_a_time_is_taken_as_it_was_meant(typed: str, meant: datetime) -> None:
    assert moment(typed, NOON) == meant


@pytest.mark.parametrize("typed", ["", "5", "m5", "yesterday", "999999999d", "2026-13-01"])
def test_what_is_no_time_is_refused_with_the_way_to_write_one(typed: str) -> None:
    with pytest.raises(M1Error, match="is not a time") as caught:
        moment(typed, NOON)
    assert caught.value.exit_code is ExitCode.USAGE
