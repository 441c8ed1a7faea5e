"""The store: one SQLite database, one writer, and a revision for every event.

Used from the daemon's one thread. Every change goes through a transaction that also stores the events that tell of it;
when it is committed (WAL with synchronous=FULL: on the medium) the events are handed to `on_commit`, in order. So what
anybody was told is stored, and what is stored is told, once.

The one thread serves everybody, so it waits no longer than BUSY_S for another program that holds the database. A
database that is known to be damaged, or not at its path any more, is not changed; what can still be read is read.
"""

from __future__ import annotations

import ctypes
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from m1.failpoints import reach
from m1.journal import Result
from m1.v1 import event_pb2

from m1d.jobs.job import Checkpoint, Job
from m1d.jobs.states import JobState
from m1d.store.codec import (
    StoreDamagedError,
    checkpoint_from_body,
    checkpoint_to_body,
    event_from_payload,
    job_from_row,
    job_to_row,
    result_from_body,
    result_to_body,
)
from m1d.store.identity import Identity, StoreReplacedError
from m1d.store.metrics import Bucket, close_bucket, put_points, read_series
from m1d.store.migrations import check_version, migrate

# How long a change waits for another program, once the daemon serves; and its start, which keeps nobody waiting.
BUSY_S = 0.2
_START_BUSY_S = 5.0

_JOB_COLUMNS = "number, name, request_id, state, priority, position, body"


class Store:
    """The database and its readers. Writing is `with store.transaction() as tx`."""

    def __init__(self, path: Path) -> None:
        """Open the database, make it or bring it to this version's schema.

        Raises:
            M1Error: STORE_TOO_NEW.
            sqlite3.Error: it is not a database, or the disk refuses.
        """
        self.path = path
        self.damage = ""
        """What is known to be wrong with the database; then nothing is changed."""
        # A database that was closed in good order has none.
        self.ended_badly = path.with_name(f"{path.name}-wal").exists()
        self._db = sqlite3.connect(path, isolation_level=None, timeout=_START_BUSY_S)
        self._db.row_factory = sqlite3.Row
        version = check_version(self._db, path)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "fullfsync=ON", "foreign_keys=ON", "cache_size=-16000"):
            self._db.execute(f"PRAGMA {pragma}")
        migrate(self._db, version, path)
        self._db.execute("INSERT OR IGNORE INTO meta VALUES ('store_id', ?)", (uuid.uuid4().hex,))
        self.store_id: str = self._db.execute("SELECT value FROM meta WHERE key = 'store_id'").fetchone()[0]
        last = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
        self.revision: int = last[0] if last else 0
        old = self._db.execute("SELECT value FROM meta WHERE key = 'revision_of_0_1_0'").fetchone()
        # The last revision that 0.1.0 stored.
        self._old_upto = int(old[0]) if old else 0
        self.on_commit: Callable[[Sequence[event_pb2.Event]], None] = lambda _events: None
        self._identity = Identity(path, self._db)
        self._db.execute(f"PRAGMA busy_timeout = {round(BUSY_S * 1000)}")

    def close(self) -> None:
        """Close the database; one that is not at its path any more is left to the end of the process."""
        try:
            self._identity.check()
        except StoreReplacedError:
            # SQLite would remove, by its path, the log of whatever lies there now.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._db))
            return
        self._db.close()
        self._identity.close()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """All of it or nothing; its events are told after the commit.

        Raises:
            StoreDamagedError: the database is known to be damaged.
            StoreReplacedError: its file was deleted or replaced; what was changed is not there any more.
            sqlite3.Error: another program holds it, or the disk refuses; nothing was changed.
        """
        self._begin()
        tx = Transaction(self._db, self.revision)
        try:
            yield tx
            reach("before.commit")
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        reach("after.commit")
        self.revision = tx.revision
        # Without events, too: who waits for something stored looks again.
        self.on_commit(tx.events)
        reach("after.publish")
        self._identity.check()  # what went into a file that nobody will open again is not stored

    def _begin(self) -> None:
        self._refuse_damage()
        self._db.execute("BEGIN IMMEDIATE")

    def _refuse_damage(self) -> None:
        if self.damage:
            raise StoreDamagedError(self.damage)
        self._identity.check()

    # Jobs

    def job(self, number: int) -> Job | None:
        """The job of a number."""
        return self._one_job("WHERE number = ?", number)

    def job_by_name(self, name: str) -> Job | None:
        """The job of a name."""
        return self._one_job("WHERE name = ?", name)

    def job_by_request(self, request_id: str) -> Job | None:
        """The job that a request made."""
        return self._one_job("WHERE request_id = ?", request_id)

    def jobs(self, states: Iterable[JobState] = (), *, below: int | None = None, limit: int = 1000) -> list[Job]:
        """Newest first; only those with a number below `below`."""
        wanted = list(states) or list(JobState)
        marks = ",".join("?" * len(wanted))
        rows = self._db.execute(
            f"SELECT {_JOB_COLUMNS} FROM jobs WHERE state IN ({marks}) AND number < ? ORDER BY number DESC LIMIT ?",  # noqa: S608
            (*wanted, below if below is not None else 2**62, limit),
        )
        return [job_from_row(dict(row)) for row in rows]

    def next_in_turn(self) -> Job | None:
        """The queued job that runs next: the highest priority, then the earliest position."""
        return self._one_job("WHERE state = 'QUEUED' ORDER BY priority DESC, position LIMIT 1")

    def head_position(self, priority: int) -> int:
        """The position before every job of a priority."""
        (first,) = self._db.execute("SELECT min(position) FROM jobs WHERE priority = ?", (priority,)).fetchone()
        return (first if first is not None else 1) - 1

    def last_position(self, priority: int) -> int:
        """The position of the last job of a priority; 0 if there is none."""
        (last,) = self._db.execute("SELECT max(position) FROM jobs WHERE priority = ?", (priority,)).fetchone()
        return last or 0

    def newest_names(self, limit: int) -> list[str]:
        """The names of the newest jobs."""
        rows = self._db.execute("SELECT name FROM jobs ORDER BY number DESC LIMIT ?", (limit,))
        return [row["name"] for row in rows]

    def parent_copies(self, prefix: str) -> list[str]:
        """The directories that jobs remember to begin with; their names begin with the prefix."""
        # Not by SQLite's JSON: a metric that is not a number is no JSON for it.
        rows = self._db.execute(f"SELECT {_JOB_COLUMNS} FROM jobs WHERE instr(body, ?)", (prefix,))  # noqa: S608
        return [job.parent_copy for job in (job_from_row(dict(row)) for row in rows) if job.parent_copy]

    def next_number(self) -> int:
        """The number that the next job gets."""
        last = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'").fetchone()
        return (last[0] if last else 0) + 1

    def use_no_number_below(self, number: int) -> None:
        """Give the next job at least this number: those before it are in use, though nothing is stored of them."""
        if self.next_number() < number:
            with self.transaction():
                self._db.execute("DELETE FROM sqlite_sequence WHERE name = 'jobs'")
                self._db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('jobs', ?)", (number - 1,))

    def _one_job(self, where: str, *values: object) -> Job | None:
        row = self._db.execute(f"SELECT {_JOB_COLUMNS} FROM jobs {where}", values).fetchone()  # noqa: S608
        return job_from_row(dict(row)) if row else None

    # Events

    def events(
        self, after: int, upto: int, *, job: int | None, kinds: Iterable[int], limit: int
    ) -> tuple[list[event_pb2.Event], int]:
        """Events with after < revision <= upto that pass the filter, at most `limit`, and the revision read up to."""
        kinds = list(kinds)
        marks = ",".join("?" * len(kinds))
        only_job = "" if job is None else "AND job = ?"
        rows = self._db.execute(
            f"SELECT revision, payload FROM events WHERE revision > ? AND revision <= ? AND kind IN ({marks})"  # noqa: S608
            f" {only_job} ORDER BY revision LIMIT ?",
            (after, upto, *kinds, *(() if job is None else (job,)), limit),
        ).fetchall()
        read_upto = rows[-1]["revision"] if len(rows) == limit else upto
        found = [event_from_payload(row["payload"], old=row["revision"] <= self._old_upto) for row in rows]
        return found, read_upto

    # Checkpoints

    def checkpoints(self, job: int, *, below: int | None = None, limit: int = 1000) -> list[Checkpoint]:
        """Newest first; only those of a step below `below`."""
        rows = self._db.execute(
            "SELECT body FROM checkpoints WHERE job = ? AND step < ? ORDER BY step DESC LIMIT ?",
            (job, below if below is not None else 2**62, limit),
        )
        return [checkpoint_from_body(row["body"]) for row in rows]

    def newest_step(self, job: int) -> int:
        """The step of the newest checkpoint; 0 if there is none."""
        (step,) = self._db.execute("SELECT max(step) FROM checkpoints WHERE job = ?", (job,)).fetchone()
        return step or 0

    def checkpoint(self, job: int, step: int) -> Checkpoint | None:
        """The checkpoint of a step."""
        row = self._db.execute("SELECT body FROM checkpoints WHERE job = ? AND step = ?", (job, step)).fetchone()
        return checkpoint_from_body(row["body"]) if row else None

    # Results

    def results(self, job: int) -> list[Result]:
        """Those of a job, the newest last."""
        rows = self._db.execute("SELECT body FROM results WHERE job = ?", (job,))
        return sorted((result_from_body(row["body"]) for row in rows), key=lambda result: (result.time, result.name))

    def result(self, job: int, name: str) -> Result | None:
        """The result of a name."""
        row = self._db.execute("SELECT body FROM results WHERE job = ? AND name = ?", (job, name)).fetchone()
        return result_from_body(row["body"]) if row else None

    # Metrics

    def metric_names(self, job: int) -> list[str]:
        """Sorted."""
        rows = self._db.execute("SELECT name FROM series WHERE job = ? ORDER BY name", (job,))
        return [row["name"] for row in rows]

    def series(self, job: int, name: str, first_step: int, last_step: int, max_points: int) -> list[Bucket] | None:
        """A series in at most `max_points` buckets of equal width in steps; None if there is no such series."""
        return read_series(self._db, job, name, first_step, last_step, max_points)

    # Retention

    @property
    def first_revision(self) -> int:
        """Of the oldest event that is still there; the one after the newest when there is none."""
        (first,) = self._db.execute("SELECT min(revision) FROM events").fetchone()
        return first if first is not None else self.revision + 1

    def forget_events(self, before: int, limit: int) -> int:
        """Remove at most `limit` events before a revision, the oldest first; how many."""
        self._refuse_damage()
        return self._db.execute(
            "DELETE FROM events WHERE revision IN (SELECT revision FROM events WHERE revision < ?"
            " ORDER BY revision LIMIT ?)",
            (before, limit),
        ).rowcount

    def forget_points(self, ended_before: float, limit: int) -> int:
        """Remove at most about `limit` single points of jobs that ended before then; their summaries stay. How many."""
        found = self._db.execute(
            "SELECT series.id FROM series JOIN jobs ON jobs.number = series.job"
            " WHERE jobs.end_time < ? AND EXISTS (SELECT 1 FROM points WHERE points.series = series.id) LIMIT 1",
            (ended_before,),
        ).fetchone()
        if found is None:
            return 0
        with self.transaction() as tx:
            return tx.forget_points(found["id"], limit)


class Transaction:
    """The changes of one commit, and the events that tell of them."""

    def __init__(self, db: sqlite3.Connection, revision: int) -> None:
        self._db = db
        self.revision = revision
        self.events: list[event_pb2.Event] = []

    def insert_job(self, job: Job) -> Job:
        """Store a new job under the next number, whatever number it carries."""
        row = job_to_row(job)
        row.pop("number")
        cursor = self._db.execute(
            f"INSERT INTO jobs ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",  # noqa: S608
            tuple(row.values()),
        )
        assert cursor.lastrowid is not None
        return replace(job, number=cursor.lastrowid)

    def update_job(self, job: Job) -> None:
        """Store a job in the place of the one with its number."""
        row = job_to_row(job)
        number = row.pop("number")
        assignments = ", ".join(f"{name} = ?" for name in row)
        self._db.execute(f"UPDATE jobs SET {assignments} WHERE number = ?", (*row.values(), number))  # noqa: S608

    def delete_job(self, job: Job) -> None:
        """Remove a job with its checkpoints and metrics; its events stay."""
        self._db.execute("DELETE FROM jobs WHERE number = ?", (job.number,))

    def checkpoint(self, job: int, step: int) -> Checkpoint | None:
        """The checkpoint of a step, as it is within this transaction."""
        row = self._db.execute("SELECT body FROM checkpoints WHERE job = ? AND step = ?", (job, step)).fetchone()
        return checkpoint_from_body(row["body"]) if row else None

    def put_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Store a checkpoint, in the place of an earlier one of the same step; only one is the best."""
        if checkpoint.best:
            for row in self._db.execute(
                "SELECT body FROM checkpoints WHERE job = ?", (checkpoint.job_number,)
            ).fetchall():
                known = checkpoint_from_body(row["body"])
                if known.best:
                    self._write_checkpoint(replace(known, best=False))
        self._write_checkpoint(checkpoint)

    def _write_checkpoint(self, checkpoint: Checkpoint) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?)",
            (checkpoint.job_number, checkpoint.step, checkpoint_to_body(checkpoint)),
        )

    def delete_checkpoint(self, job: int, step: int) -> bool:
        """Remove a checkpoint; whether there was one."""
        return self._db.execute("DELETE FROM checkpoints WHERE job = ? AND step = ?", (job, step)).rowcount > 0

    def put_result(self, job: int, result: Result, most: int) -> None:
        """Store a result, in the place of the job's last one of its name; beyond `most` names the oldest ones go."""
        rows = self._db.execute("SELECT body FROM results WHERE job = ? AND name != ?", (job, result.name))
        others = sorted((result_from_body(row["body"]) for row in rows), key=lambda other: (other.time, other.name))
        for other in others[: max(0, len(others) + 1 - most)]:
            self._db.execute("DELETE FROM results WHERE job = ? AND name = ?", (job, other.name))
        self._db.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", (job, result.name, result_to_body(result)))

    def put_points(self, job: int, step: int, values: Mapping[str, float]) -> None:
        """Store the values of a step, in the place of what an earlier attempt measured there."""
        put_points(self._db, job, step, values)

    def forget_points(self, series: int, limit: int) -> int:
        """Remove the first points of a series, which has its summaries; how many."""
        close_bucket(self._db, series)
        return self._db.execute(
            "DELETE FROM points WHERE series = ? AND step IN (SELECT step FROM points WHERE series = ? LIMIT ?)",
            (series, series, limit),
        ).rowcount

    def emit(self, event: event_pb2.Event, kind: int, job: int) -> None:
        """Store an event under the next revision."""
        self.revision += 1
        event.revision = self.revision
        self._db.execute(
            "INSERT INTO events (revision, job, kind, payload) VALUES (?, ?, ?, ?)",
            (self.revision, job, kind, event.SerializeToString()),
        )
        self.events.append(event)
