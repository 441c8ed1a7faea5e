"""The database's schema, as the list of steps that made it. A step that was released is never changed.

`PRAGMA user_version` holds the number of steps that a database has had. All that are missing run in one transaction.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from m1.durable import sync, sync_directory
from m1.errors import M1Error, Reason
from m1.failpoints import reach

_V1 = """
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- AUTOINCREMENT: a number is never used twice, not even after its job was deleted.
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    request_id TEXT UNIQUE,
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    position INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX jobs_by_turn ON jobs (state, priority DESC, position);

CREATE TABLE checkpoints (
    job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
    step INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (job, step)
) WITHOUT ROWID;

-- The payload is a serialised m1.v1.Event: the contract's own rules keep it readable.
CREATE TABLE events (
    revision INTEGER PRIMARY KEY AUTOINCREMENT,
    job INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX events_by_job ON events (job, revision);

CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
    name TEXT NOT NULL,
    UNIQUE (job, name)
);
CREATE TABLE points (
    series INTEGER NOT NULL REFERENCES series (id) ON DELETE CASCADE,
    step INTEGER NOT NULL,
    value REAL,  -- NULL stands for NaN, which SQLite cannot hold
    PRIMARY KEY (series, step)
) WITHOUT ROWID;
"""

# Summaries of 64 steps each, so that a long series is drawn without reading every point; and when a job ended.
_V2 = """
ALTER TABLE jobs ADD COLUMN end_time REAL;  -- NULL while it is not over
UPDATE jobs SET end_time = json_extract(body, '$.times.' || state) WHERE state IN ('SUCCEEDED', 'FAILED', 'CANCELLED');
CREATE INDEX jobs_by_end ON jobs (end_time) WHERE end_time IS NOT NULL;

ALTER TABLE series ADD COLUMN open_bucket INTEGER;  -- the one bucket without a summary
CREATE TABLE summaries (
    series INTEGER NOT NULL REFERENCES series (id) ON DELETE CASCADE,
    bucket INTEGER NOT NULL,  -- step / 64
    first_step INTEGER NOT NULL,
    last_step INTEGER NOT NULL,
    points INTEGER NOT NULL,
    numbers INTEGER NOT NULL,  -- points that are not NaN
    low REAL,
    high REAL,
    total REAL,
    last REAL,
    PRIMARY KEY (series, bucket)
) WITHOUT ROWID;
INSERT INTO summaries
    SELECT series, step / 64, min(step), max(step), count(*), count(value), min(value), max(value), sum(value),
        (SELECT q.value FROM points q WHERE q.series = p.series AND q.step / 64 = p.step / 64
         ORDER BY q.step DESC LIMIT 1)
    FROM points p GROUP BY series, step / 64;
"""

# Results, of each name the newest one; and which events are of 0.1.0, which left some of what they say to be guessed.
_V3 = """
CREATE TABLE results (
    job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
    name TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (job, name)
) WITHOUT ROWID;
INSERT INTO meta SELECT 'revision_of_0_1_0', coalesce(max(revision), 0) FROM events;
"""

STEPS = [_V1, _V2, _V3]


def check_version(connection: sqlite3.Connection, path: Path) -> int:
    """The schema that the database has, before anything in it is touched.

    Raises:
        M1Error: STORE_TOO_NEW.
    """
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(STEPS):
        raise M1Error(
            Reason.STORE_TOO_NEW,
            f'the database "{path}" has schema {version} and this m1d knows up to {len(STEPS)}',
            "install the newer m1d again, or choose another home",
            field="home",
            value=str(path.parent),
        )
    return version


def migrate(connection: sqlite3.Connection, version: int, path: Path) -> None:
    """Bring the database from a version to this one's schema, all or nothing, with a copy of the old one beside it."""
    if 0 < version < len(STEPS):
        reach("before.migrate")
        _back_up(connection, path.with_name(f"{path.name}.v{version}"))
        reach("after.backup")
    if version < len(STEPS):
        script = "".join(STEPS[version:])
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {len(STEPS)};\nCOMMIT;")


def _back_up(connection: sqlite3.Connection, path: Path) -> None:
    """A whole copy, which appears when it is durable; an earlier copy of the same version is replaced."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    copy = sqlite3.connect(part)
    connection.backup(copy)
    copy.close()
    with open(part, "rb") as file:
        sync(file.fileno())
    part.replace(path)
    sync_directory(path.parent)
