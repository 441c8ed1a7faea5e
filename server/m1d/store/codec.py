"""Jobs and checkpoints as rows: the columns that queries need, and the rest as JSON; events as they are told.

What cannot be read back raises StoreDamagedError: the database was damaged where its own structure does not show it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from google.protobuf import message
from m1.jobdir import Profile, RecipeFile, Want
from m1.journal import Exited, Finding
from m1.v1 import event_pb2

from m1d.jobs.job import Checkpoint, Job, JobError, Process, Progress, Report
from m1d.jobs.states import JobState

# A message that is wrong is a DecodeError; whether that is a ValueError depends on the implementation of protobuf.
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, message.DecodeError)

_COLUMNS = ("number", "name", "request_id", "state", "priority", "position")


class StoreDamagedError(sqlite3.DatabaseError):
    """What is stored cannot be read back, or may not be changed any more because of that."""


@contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        raise StoreDamagedError(f"{what} cannot be read: {type(error).__name__}") from error


def job_to_row(job: Job) -> dict[str, Any]:
    """The columns of a job."""
    body = asdict(job)
    row = {name: body.pop(name) for name in _COLUMNS}
    end_time = job.times[job.state.value] if job.final else None
    return row | {"end_time": end_time, "body": json.dumps(body)}


def job_from_row(row: dict[str, Any]) -> Job:
    """The job of a row.

    Raises:
        StoreDamagedError: it is not one.
    """
    with _reading(f"job {row['number']}"):
        return _job(row, json.loads(row["body"]))


def _job(row: dict[str, Any], body: dict[str, Any]) -> Job:
    columns = {name: row[name] for name in _COLUMNS}
    typed = {
        "state": JobState(row["state"]),
        "want": Want(body["want"]),
        "profile": Profile(**body["profile"]),
        "progress": Progress(**body["progress"]),
        "exited": Exited(**body["exited"]) if body["exited"] else None,
        "process": Process(**body["process"]) if body["process"] else None,
        "error": JobError(**body["error"]) if body["error"] else None,
        "report": Report(**body["report"]) if body["report"] else None,
        # Not in the jobs of earlier versions.
        "findings": [Finding(**finding) for finding in body.get("findings", ())],
        "recipe_file": RecipeFile(**body["recipe_file"]) if body.get("recipe_file") else None,
    }
    return Job(**{**body, **columns, **typed})


def checkpoint_to_body(checkpoint: Checkpoint) -> str:
    """The JSON of a checkpoint."""
    return json.dumps(asdict(checkpoint))


def checkpoint_from_body(body: str) -> Checkpoint:
    """The checkpoint of its JSON.

    Raises:
        StoreDamagedError: it is not one.
    """
    with _reading("a checkpoint"):
        return Checkpoint(**json.loads(body))


def event_from_payload(payload: bytes) -> event_pb2.Event:
    """The event of its serialised form.

    Raises:
        StoreDamagedError: it is not one.
    """
    with _reading("an event"):
        return event_pb2.Event.FromString(payload)
