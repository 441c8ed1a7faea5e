"""`m1ctl bench compare` on files made by hand; `m1ctl bench` and `m1ctl submit stress` on a real daemon."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from harness import PATIENCE_S, RunningDaemon
from m1.errors import ExitCode, M1Error, Reason
from m1.v1 import event_pb2, job_pb2
from m1ctl.results import FORMAT, Compared, compare, comparison_page, read_result


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
        Compared("x", "the x", "s", 2, 3, 1.5, apart=True),
        Compared("y", "the y", "s", 4, 4.5, 1.125, apart=False),
        Compared("gone", "the gone", "s", 1, None, None, None),
        Compared("none", "the none", "s", None, 0, None, None),
        Compared("new", "the new", "s", None, 1, None, None),
    ]
    page = comparison_page(*results, rows).splitlines()
    assert page[0] == "A  2026-03-01T12:00:00+01:00, A1, torch 2.4"
    assert page[3].split() == ["MEASURED", "A", "B", "UNIT", "B", "/", "A", "APART"]
    assert page[4].split() == ["the", "x", "2", "3", "s", "1.5", "yes"]


def test_figures_in_other_units_have_no_ratio(tmp_path: Path) -> None:
    a, b = (
        written(tmp_path / "a", finding("x", 2, 1, 3)),
        written(tmp_path / "b", finding("x", 2, 4, 5) | {"unit": "ms"}),
    )
    (row,) = compare(read_result(a), read_result(b))
    assert (row.ratio, row.apart) == (None, None)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "it is not JSON"),
        ("{", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[1]", "is not a benchmark's result"),
        ('{"findings": []}', "is not a benchmark's result"),
        ('{"format": "m1d bench 9", "findings": []}', "another version"),
        (f'{{"format": "{FORMAT}"}}', "damaged"),
        (f'{{"format": "{FORMAT}", "findings": [7]}}', "damaged"),
        (f'{{"format": "{FORMAT}", "findings": [{{"key": "x"}}]}}', "damaged"),
        (json.dumps({"format": FORMAT, "findings": [finding("x", 1) | {"value": "fast"}]}), "damaged"),
        (json.dumps({"format": FORMAT, "findings": [finding("x", float("nan"))]}), "damaged"),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused_by_name(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(M1Error, match=problem) as refused:
        read_result(path)
    assert refused.value.reason is Reason.INVALID_ARGUMENT
    assert "other.json" in refused.value.message


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(M1Error, match="cannot be read"):
        read_result(tmp_path / "nothing.json")


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

    made = daemon.m1ctl("bench", "--only", "start", "--out", str(result))

    assert made.returncode == 0, made.stderr
    assert "m1ctl --help" in made.stdout
    assert {"start/help", "start/list"} == set(read_result(result).findings)
    assert daemon.m1ctl("bench", "compare", str(result), str(result)).stdout.count("no") >= 2
    assert list(daemon.client.list_jobs()) == []


def test_ctrl_c_ends_a_benchmark_and_leaves_no_job(daemon: RunningDaemon) -> None:
    benchmark = daemon.begin_m1ctl("bench", "--only", "engine")
    states = daemon.client.watch(from_revision=1, kinds=[event_pb2.EVENT_KIND_STATE])
    assert any(response.events for response in states), "its job is submitted"
    benchmark.send_signal(signal.SIGINT)
    data, _ = benchmark.communicate(timeout=PATIENCE_S)
    assert (benchmark.returncode, data) == (ExitCode.INTERRUPTED, "")
    assert list(daemon.client.list_jobs()) == []


def test_a_benchmark_does_not_begin_beside_a_job(held_daemon: RunningDaemon) -> None:
    refused = held_daemon.m1ctl("bench")

    nowhere = held_daemon.m1ctl("bench", "--out", "nowhere/result.json")
    assert nowhere.stderr.startswith('m1ctl: "nowhere/result.json" is in no directory')
    assert refused.returncode == 5
    assert "holder" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    (job,) = held_daemon.client.list_jobs()
    assert job.state == job_pb2.JOB_STATE_HELD
