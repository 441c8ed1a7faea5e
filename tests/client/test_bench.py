"""`m1ctl bench compare` on files made by hand; `m1ctl bench` and `m1ctl submit stress` on a real daemon."""

import datetime
import errno
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from harness import PATIENCE_S, RunningDaemon
from m1.errors import ExitCode, M1Error, Reason
from m1.v1 import event_pb2, job_pb2, system_pb2
from m1ctl.bench.results import (
    FORMAT,
    Compared,
    compare,
    comparison_document,
    comparison_page,
    document,
    read_result,
    to_text,
)
from m1ctl.out_file import check_writable, write
from m1ctl.sdk.interrupts import uninterrupted


def finding(key: str, value: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"key": key, "title": f"the {key}", "unit": "s", "n": 7, "value": value, "low": low, "high": high}


def written(path: Path, *findings: dict[str, Any], **changes: object) -> Path:
    about = {"date": "2026-03-01T12:00:00+01:00", "machine": {"cpu": "A1"}, "versions": {"torch": "2.4"}}
    path.write_text(json.dumps({"format": FORMAT, **about, "findings": list(findings), **changes}))
    return path


def test_two_results_are_compared_by_key(tmp_path: Path) -> None:
    a = written(
        tmp_path / "a", finding("x", 2, 1.5, 2.5), finding("y", 4, 3, 5), finding("gone", 1), finding("none", None)
    )
    b = written(
        tmp_path / "b", finding("y", 4.5, 4, 6), finding("x", 3, 2.6, 3.5), finding("new", 1), finding("none", 0)
    )
    results = read_result(a), read_result(b)

    rows = compare(*results)

    assert rows == [
        Compared("x", "the x", "s", "s", 2, 3, 1.5, apart=True),
        Compared("y", "the y", "s", "s", 4, 4.5, 1.125, apart=False),
        Compared("gone", "the gone", "s", None, 1, None, None, None),
        Compared("none", "the none", "s", "s", None, 0, None, None),
        Compared("new", "the new", None, "s", None, 1, None, None),
    ]
    page = comparison_page(*results, rows).splitlines()
    assert page[0] == "A  2026-03-01T12:00:00+01:00, A1, torch 2.4"
    assert page[3].split() == ["MEASURED", "A", "B", "UNIT", "B", "/", "A", "APART"]
    assert page[4].split() == ["the", "x", "2", "3", "s", "1.5", "yes"]
    assert page[8].split() == ["the", "new", "-", "1", "s", "-", "-"]


def test_figures_in_other_units_have_no_ratio_and_each_its_own_unit(tmp_path: Path) -> None:
    a, b = (
        written(tmp_path / "a", finding("x", 2, 1, 3)),
        written(tmp_path / "b", finding("x", 2, 4, 5) | {"unit": "ms"}),
    )
    results = read_result(a), read_result(b)
    rows = compare(*results)
    assert (rows[0].ratio, rows[0].apart) == (None, None)
    line = comparison_page(*results, rows).splitlines()[4]
    assert " ".join(line.split()) == "the x 2 s 2 ms differ - -"
    (plain,) = comparison_document(*results, rows)["findings"]
    assert (plain["unit_a"], plain["unit_b"]) == ("s", "ms")


@pytest.mark.parametrize(("before", "after"), [(1e-300, 1e300), (0, 1), (0.0, 0.0), (None, 1)])
def test_a_ratio_that_no_number_holds_is_none_and_the_json_stays_json(
    before: float | None, after: float, tmp_path: Path
) -> None:
    results = (
        read_result(written(tmp_path / "a", finding("x", before))),
        read_result(written(tmp_path / "b", finding("x", after))),
    )
    rows = compare(*results)
    assert rows[0].ratio is None
    assert "Infinity" not in to_text(comparison_document(*results, rows))


def test_what_is_not_finite_is_absent_in_a_result() -> None:
    found = job_pb2.Finding(key="x", value=float("inf"), low=1.0, high=float("nan"))
    result = document(
        [found], system_pb2.GetSystemInfoResponse(), system_pb2.GetTopologyResponse(), datetime.datetime.now()
    )
    (plain,) = json.loads(to_text(result))["findings"]
    assert (plain["value"], plain["low"], plain["high"]) == (None, 1.0, None)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "it is not JSON"),
        ("{", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[1]", "is not a benchmark result"),
        ('{"findings": []}', "is not a benchmark result"),
        ('{"format": "m1d bench 9", "findings": []}', "of another version"),
        (f'{{"format": "{FORMAT}"}}', "damaged"),
        (f'{{"format": "{FORMAT}", "findings": [7]}}', "damaged"),
        (f'{{"format": "{FORMAT}", "findings": [{{"key": "x"}}]}}', "damaged"),
        (json.dumps({"format": FORMAT, "findings": [finding("x", 1) | {"value": "fast"}]}), "damaged"),
        (json.dumps({"format": FORMAT, "findings": [finding("x", float("nan"))]}), "damaged"),
        (json.dumps({"format": FORMAT, "findings": [finding("x", 10**400)]}), "damaged"),
        (json.dumps({"format": FORMAT, "findings": [finding("x", 1), finding("x", 2)]}), 'damaged: 2 .* called "x"'),
        (f'{{"format": "{FORMAT}", "findings": [], "machine": {{"memory_bytes": 1e999}}}}', "damaged"),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused_by_name(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(M1Error, match=problem) as refused:
        read_result(path)
    assert refused.value.reason is Reason.INVALID_ARGUMENT
    assert "other.json" in refused.value.message


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(M1Error, match=r'file ".*/nothing.json" does not exist: m1ctl bench --out FILE') as refused:
        read_result(tmp_path / "nothing.json")
    assert refused.value.exit_code is ExitCode.NOT_FOUND
    with pytest.raises(M1Error, match="cannot be read") as refused:
        read_result(tmp_path)
    assert refused.value.exit_code is ExitCode.USAGE


def test_a_result_takes_the_place_of_the_file_before_it_behind_its_link_with_its_mode(tmp_path: Path) -> None:
    good, link = tmp_path / "good.json", tmp_path / "link.json"
    good.write_text("good")
    good.chmod(0o640)
    link.symlink_to(good)
    check_writable(str(link))
    assert good.read_text() == "good"

    write(str(link), b"better", "name another file")

    assert (good.read_text(), good.stat().st_mode & 0o777, link.is_symlink()) == ("better", 0o640, True)
    assert set(tmp_path.iterdir()) == {good, link}


def test_a_result_that_cannot_be_written_leaves_the_file_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    good = tmp_path / "good.json"
    good.write_text("good")
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(M1Error, match=r'good.json" cannot be written \(No space .*\): name another') as refused:
        write(str(good), b"better", "name another file")
    assert refused.value.exit_code is ExitCode.ERROR
    assert good.read_text() == "good"
    assert list(tmp_path.iterdir()) == [good]


def test_a_file_that_no_result_could_be_written_to_is_refused_beforehand(tmp_path: Path) -> None:
    for name, problem in (
        ("", "is a directory"),
        ("no/x", "cannot be written: its directory does not exist"),
        ("x" * 255, "cannot be written"),
    ):
        with pytest.raises(M1Error, match=f'" {problem}.*: name another file') as refused:
            check_writable(f"{tmp_path}/{name}")
        assert refused.value.exit_code is ExitCode.USAGE
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_waits_for_the_end_of_what_must_not_be_cut_short(capsys: pytest.CaptureFixture[str]) -> None:
    ended = []

    def end() -> None:
        with uninterrupted("ending it"):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        end()
    assert ended == [True]
    assert capsys.readouterr().err == "ending it; this takes a moment\n"
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_stress_is_watched_and_what_it_found_is_shown(daemon: RunningDaemon) -> None:
    watched = daemon.m1ctl("submit", "stress", "--set", "duration_s=3", "--set", "work=matmul", "--watch")

    assert watched.returncode == 0, watched.stderr
    assert "gflops" in watched.stdout
    shown = daemon.m1ctl("show", watched.stdout.split()[0])
    assert "matrix product, float32" in shown.stdout
    assert "GFLOP/s" in shown.stdout


def test_a_benchmark_writes_a_result_that_can_be_compared_and_leaves_no_job(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    result = tmp_path / "result.json"

    made = daemon.m1ctl("bench", "--only", "start", "--only", "start", "--out", str(result))

    assert made.returncode == 0, made.stderr
    assert "m1ctl --help" in made.stdout
    assert {"start/help", "start/list"} == set(read_result(result).findings)
    assert daemon.m1ctl("bench", "compare", str(result), str(result)).stdout.count("no") >= 2
    assert list(daemon.client.list_jobs()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_result_that_cannot_be_kept_is_printed_all_the_same(daemon: RunningDaemon) -> None:
    made = daemon.m1ctl("bench", "--only", "start", "--out", "/dev/full")

    assert made.returncode == ExitCode.ERROR
    assert "m1ctl --help" in made.stdout
    assert made.stderr.splitlines()[-1] == (
        'm1ctl: --out "/dev/full" cannot be written (No space left on device): the result is on stdout only;'
        " free some space, or name another file"
    )


def test_claims_that_were_cancelled_leave_the_file_and_say_that_they_begin_anew(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    result = tmp_path / "good.json"
    result.write_text("good")
    claims = daemon.begin_m1ctl("bench", "claims", "--out", str(result))
    daemon.client.cancel(submitted(daemon).id)
    _, errors = claims.communicate(timeout=PATIENCE_S)
    assert claims.returncode == ExitCode.ERROR
    assert result.read_text() == "good"
    assert "was cancelled: m1ctl retry j1 starts it over" in errors
    assert f'"{result}" was not changed' in errors


def submitted(daemon: RunningDaemon) -> job_pb2.Job:
    """The first job, as soon as it is submitted."""
    states = daemon.client.watch(from_revision=1, kinds=[event_pb2.EVENT_KIND_STATE])
    return next(event.state_changed.job for response in states for event in response.events)


@pytest.mark.parametrize("part", ["engine", "daemon"])
def test_ctrl_c_ends_a_benchmark_and_leaves_no_job(daemon: RunningDaemon, part: str) -> None:
    benchmark = daemon.begin_m1ctl("bench", "--only", part)
    assert submitted(daemon).id == "j1"
    benchmark.send_signal(signal.SIGINT)
    data, _ = benchmark.communicate(timeout=PATIENCE_S)
    assert (benchmark.returncode, data) == (ExitCode.INTERRUPTED, "")
    assert list(daemon.client.list_jobs()) == []


def test_a_benchmark_does_not_begin_beside_a_job(held_daemon: RunningDaemon) -> None:
    refused = held_daemon.m1ctl("bench")

    nowhere = held_daemon.m1ctl("bench", "--out", "nowhere/result.json")
    assert nowhere.stderr.startswith('m1ctl: "nowhere/result.json" cannot be written: its directory')
    assert refused.returncode == 5
    assert "holder" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    (job,) = held_daemon.client.list_jobs()
    assert job.state == job_pb2.JOB_STATE_HELD
