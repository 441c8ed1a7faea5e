"""The store by itself: migrations, series of any shape, and what is forgotten."""

from __future__ import annotations

import itertools
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from m1.errors import M1Error, Reason
from m1.spec import JobSpec
from m1.v1 import event_pb2
from m1d.events.follow import first_cursor
from m1d.home.config import Config, read_config
from m1d.jobs.job import Job
from m1d.jobs.states import JobState
from m1d.store import Store
from m1d.store.migrations import STEPS
from m1d.store.retention import forget

FIXTURES = Path(__file__).parent.parent / "fixtures"
VERSIONS = sorted(int(path.stem.removeprefix("store-v")) for path in FIXTURES.glob("store-v*.sql"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "db")
    yield opened
    opened.close()


def add_job(store: Store, name: str = "a", *, ended: float | None = None) -> Job:
    job = Job(
        number=0, name=name, spec=JobSpec(recipe="cifar", data="few"), position=1, create_time=0.0,
        state=JobState.QUEUED if ended is None else JobState.SUCCEEDED,
        times={} if ended is None else {"SUCCEEDED": ended},
    )  # fmt: skip
    with store.transaction() as tx:
        return tx.insert_job(job)


def put(store: Store, job: Job, points: list[tuple[int, float]]) -> None:
    with store.transaction() as tx:
        for step, value in points:
            tx.put_points(job.number, step, {"x": value})


# Migrations


@pytest.mark.parametrize("version", VERSIONS)
def test_a_database_of_every_released_version_is_brought_to_this_one(tmp_path: Path, version: int) -> None:
    path = tmp_path / "db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript((FIXTURES / f"store-v{version}.sql").read_text())
        jobs, events = (db.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("jobs", "events"))
        points = db.execute("SELECT series, step, value FROM points ORDER BY 1, 2").fetchall()
    with closing(Store(path)) as store:
        assert len(store.jobs()) == jobs > 0
        old = store.job_by_name("old")
        assert old is not None
        assert (old.state, old.progress.step, len(store.checkpoints(old.number))) == (JobState.SUCCEEDED, 4, 2)
        told, _ = store.events(0, store.revision, job=None, kinds=range(1, 7), limit=10_000)
        assert len(told) == events
        names = store.metric_names(old.number)
        read = [(n, b.last_step, b.last) for n in names for b in store.series(old.number, n, 0, 2**40, 10_000) or ()]
        assert len(read) == len(points)
        assert sorted(value for _, _, value in read) == sorted(row[2] for row in points)
        assert store.job_by_name("waiting").state == JobState.PAUSED  # type: ignore[union-attr]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == len(STEPS)
        fresh = tmp_path / "fresh"
        Store(fresh).close()
        with closing(sqlite3.connect(fresh)) as new:
            schema = "SELECT type, name, tbl_name FROM sqlite_master ORDER BY 1, 2"
            assert db.execute(schema).fetchall() == new.execute(schema).fetchall()


def test_before_a_migration_a_whole_copy_is_left_beside_the_database(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript((FIXTURES / "store-v1.sql").read_text())
        before = list(db.iterdump())
    Store(path).close()
    with closing(sqlite3.connect(tmp_path / "db.v1")) as copy:
        assert list(copy.iterdump()) == before
        assert copy.execute("PRAGMA user_version").fetchone()[0] == 1


def test_a_migration_that_fails_leaves_the_database_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript((FIXTURES / "store-v1.sql").read_text())
        before = list(db.iterdump())
    monkeypatch.setattr("m1d.store.migrations.STEPS", [*STEPS, "CREATE TABLE fine (a); SELECT nothing FROM nowhere;"])
    with pytest.raises(sqlite3.Error):
        Store(path)
    monkeypatch.undo()
    with closing(sqlite3.connect(path)) as db:
        assert list(db.iterdump()) == before


# Series

points = st.lists(st.tuples(st.integers(1, 700), st.floats(-1e6, 1e6) | st.just(math.nan)), min_size=1, max_size=300)


@given(points=points, rewind=points, max_points=st.integers(1, 40))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_down_sampled_series_says_what_its_points_say(
    tmp_path: Path, points: list[tuple[int, float]], rewind: list[tuple[int, float]], max_points: int
) -> None:
    path = tmp_path / "series"
    path.unlink(missing_ok=True)
    with closing(Store(path)) as store:
        job = add_job(store)
        put(store, job, sorted(points, key=lambda p: p[0]))
        put(store, job, sorted(rewind, key=lambda p: p[0]))  # an attempt that went on from an earlier step
        expected = dict(points) | dict(sorted(rewind, key=lambda p: p[0]))
        buckets = store.series(job.number, "x", 0, 2**40, max_points)
        assert buckets
        assert len(buckets) <= max_points
        assert sum(bucket.count for bucket in buckets) == len(expected)
        for before, after in itertools.pairwise(buckets):
            assert before.last_step < after.first_step
        for bucket in buckets:
            inside = {s: v for s, v in expected.items() if bucket.first_step <= s <= bucket.last_step}
            numbers = [value for value in inside.values() if not math.isnan(value)]
            assert bucket.count == len(inside)
            assert (bucket.first_step, bucket.last_step) == (min(inside), max(inside))
            last = inside[max(inside)]
            assert bucket.last == last or (math.isnan(bucket.last) and math.isnan(last))
            if numbers:
                assert (bucket.min, bucket.max) == (min(numbers), max(numbers))
                assert bucket.mean == pytest.approx(sum(numbers) / len(numbers), rel=1e-9, abs=1e-6)
            else:
                assert math.isnan(bucket.mean)


def test_a_series_that_fits_comes_point_by_point(store: Store) -> None:
    job = add_job(store)
    put(store, job, [(step, float(step)) for step in range(10, 2000, 10)])
    buckets = store.series(job.number, "x", 100, 300, 50)
    assert buckets
    assert [bucket.last_step for bucket in buckets] == list(range(100, 301, 10))
    assert all(bucket.count == 1 for bucket in buckets)


def test_a_series_that_is_not_there_is_none_and_an_empty_range_is_empty(store: Store) -> None:
    job = add_job(store)
    put(store, job, [(5, 1.0)])
    assert store.series(job.number, "y", 0, 100, 10) is None
    assert store.series(job.number, "x", 6, 100, 10) == []
    assert store.series(job.number, "x", 100, 6, 10) == []


# What is forgotten


def test_old_events_are_forgotten_piece_by_piece_and_their_cursors_are_out_of_range(store: Store) -> None:
    for _ in range(5000):
        with store.transaction() as tx:
            tx.emit(event_pb2.Event(notice_raised=event_pb2.NoticeRaised(message="x")), 5, 1)
    config = Config(retained_events=1000, single_points_days=365.0)
    pieces = 1
    while forget(store, config, 0.0):
        pieces += 1
    assert pieces >= 2
    assert store.first_revision == 4001
    assert first_cursor(store, 4001, "") == 4000
    assert first_cursor(store, 1, "") == 4000
    with pytest.raises(M1Error, match="4001") as caught:
        first_cursor(store, 3000, "")
    assert caught.value.reason is Reason.CURSOR_OUT_OF_RANGE


def test_single_points_of_old_jobs_are_forgotten_and_their_summaries_stay(store: Store) -> None:
    old, recent, running = add_job(store, "old", ended=0.0), add_job(store, "new", ended=9.5e5), add_job(store, "run")
    shape = [(step, math.sin(step)) for step in range(1, 1001)]
    for job in (old, recent, running):
        put(store, job, shape)
    long_before = store.series(old.number, "x", 0, 2**40, 4)
    while forget(store, Config(retained_events=10**6, single_points_days=1.0), 1e6 - 1):
        pass
    after = store.series(old.number, "x", 0, 2**40, 4)
    assert after
    assert long_before
    assert [asdict(b) | {"mean": 0} for b in after] == [asdict(b) | {"mean": 0} for b in long_before]
    fine = store.series(old.number, "x", 0, 2**40, 10_000)
    assert fine
    assert 1 < len(fine) < 20  # buckets of 64 steps
    for job in (recent, running):
        assert len(store.series(job.number, "x", 0, 2**40, 10_000) or ()) == 1000


def test_a_number_is_not_used_again_when_the_newest_events_are_forgotten(store: Store, tmp_path: Path) -> None:
    for _ in range(3):
        with store.transaction() as tx:
            tx.emit(event_pb2.Event(notice_raised=event_pb2.NoticeRaised(message="x")), 5, 1)
    store.forget_events(100, 100)
    store.close()
    with closing(Store(tmp_path / "db")) as again:
        assert (again.revision, again.first_revision) == (3, 4)


# Configuration


def test_without_a_file_the_configuration_has_its_defaults(tmp_path: Path) -> None:
    assert read_config(tmp_path / "absent").retained_events == 200_000


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[retention]\nevents = 5", "events"),
        ("[retention]\nevent = 5000", 'did you mean "events"'),
        ("[retentio]\nevents = 5000", 'did you mean "retention"'),
        ("retention = 3", "section"),
        ("what", "TOML"),
    ],
)
def test_a_configuration_that_is_wrong_is_refused_with_its_file(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(M1Error) as caught:
        read_config(path)
    assert word in str(caught.value)
    assert "config.toml" in str(caught.value)
