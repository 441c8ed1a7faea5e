"""The log: who may read it, how a line looks, how much of the disk it takes."""

import logging
import re
import stat
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from m1d.home import logs

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING|ERROR) +[\w.]+: .*")


@pytest.fixture(autouse=True)
def _root_logger_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_record_is_one_line_in_utc(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(tmp_path / "m1d.log", foreground=True)
    before = time.strftime("%Y-%m-%dT%H:%M", time.gmtime())

    logging.getLogger("m1d.queue").info("job %d starts", 7)
    logging.getLogger("m1d.queue").debug("not wanted")

    text = (tmp_path / "m1d.log").read_text()
    assert LINE.fullmatch(text.rstrip("\n"))
    assert text.endswith("m1d.queue: job 7 starts\n")
    assert before <= text[:16]
    assert capsys.readouterr().err == text


def test_in_the_background_nothing_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(tmp_path / "m1d.log", foreground=False)
    logging.getLogger("m1d").warning("quiet")

    assert capsys.readouterr().err == ""
    assert "quiet" in (tmp_path / "m1d.log").read_text()


def test_a_name_with_a_line_break_cannot_pass_for_a_record(tmp_path: Path) -> None:
    logs.configure(tmp_path / "m1d.log", foreground=False)
    logging.getLogger("m1d").info("job %s", "x\n2026-01-01T00:00:00.000Z INFO    m1d: all is well")

    assert len((tmp_path / "m1d.log").read_text().splitlines()) == 1


def test_a_traceback_and_a_warning_are_kept(tmp_path: Path) -> None:
    logs.configure(tmp_path / "m1d.log", foreground=False)
    try:
        raise ValueError("no such thing")
    except ValueError:
        logging.getLogger("m1d").exception("it broke")
    warnings.warn("old", stacklevel=1)

    text = (tmp_path / "m1d.log").read_text()
    assert "Traceback" in text
    assert "ValueError: no such thing" in text
    assert "UserWarning: old" in text


def test_the_log_rotates_and_stays_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 1000)
    log = tmp_path / "m1d.log"
    log.write_text("from before\n")
    log.chmod(0o644)
    logs.configure(log, foreground=False)
    for number in range(100):
        logging.getLogger("m1d").info("record %d", number)

    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["m1d.log", "m1d.log.1", "m1d.log.2", "m1d.log.3"]
    assert all(mode(tmp_path / name) == 0o600 and (tmp_path / name).stat().st_size <= 1000 for name in files)
    assert "record 99" in log.read_text()


def test_configuring_twice_does_not_double_the_lines(tmp_path: Path) -> None:
    logs.configure(tmp_path / "m1d.log", foreground=False)
    logs.configure(tmp_path / "m1d.log", foreground=False)
    logging.getLogger("m1d").info("once")

    assert (tmp_path / "m1d.log").read_text().count("once") == 1
