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
from m1 import legacy
from m1.jobdir import Want
from m1.journal import Exited, Finding, Result
from m1.metrics import Metric
from m1.profile import Profile
from m1.spec import JobSpec, Program, RecipeFile
from m1.v1 import event_pb2, job_pb2

from m1d.events.translate import kind_to_proto, metric_to_proto
from m1d.jobs.job import Attempt, Checkpoint, Job, JobError, Process, Progress, Wish
from m1d.jobs.states import JobState

# A message that is wrong is a DecodeError; whether that is a ValueError depends on the implementation of protobuf.
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, message.DecodeError)

_COLUMNS = ("number", "name", "request_id", "state", "position")


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
    return row | {"priority": job.spec.priority, "end_time": end_time, "body": json.dumps(body)}


def job_from_row(row: dict[str, Any]) -> Job:
    """The job of a row, also of one that 0.1.0 wrote.

    Raises:
        StoreDamagedError: it is not one.
    """
    with _reading(f"job {row['number']}"):
        body = json.loads(row["body"])
        return _job(row, legacy.job_body(body, row["priority"]) if legacy.is_old_job(body) else body)


def _job(row: dict[str, Any], body: dict[str, Any]) -> Job:
    columns = {name: row[name] for name in _COLUMNS}
    typed = {
        "state": JobState(row["state"]),
        "spec": _spec(body["spec"]),
        "attempt": _attempt(body["attempt"]),
        "wish": Wish(**{**body["wish"], "want": Want(body["wish"]["want"])}),
        "progress": Progress(**body["progress"]),
        "error": JobError(**body["error"]) if body["error"] else None,
        "findings": [Finding(**finding) for finding in body["findings"]],
    }
    return Job(**{**body, **columns, **typed})


def _spec(data: dict[str, Any]) -> JobSpec:
    typed = {
        "profile": Profile(**data["profile"]),
        "recipe_file": RecipeFile(**data["recipe_file"]) if data["recipe_file"] else None,
        "metrics": [Metric.from_json(metric) for metric in data["metrics"]],
        "program": Program(**program) if (program := data.get("program")) else None,
    }
    return JobSpec(**{**data, **typed})


def _attempt(data: dict[str, Any]) -> Attempt:
    typed = {
        "process": Process(**data["process"]) if data["process"] else None,
        "exited": Exited(**data["exited"]) if data["exited"] else None,
    }
    return Attempt(**{**data, **typed})


def result_to_body(result: Result) -> str:
    """The JSON of a result."""
    return json.dumps(asdict(result))


def result_from_body(body: str) -> Result:
    """The result of its JSON.

    Raises:
        StoreDamagedError: it is not one.
    """
    with _reading("a result"):
        return Result(**json.loads(body))


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


def event_from_payload(payload: bytes, *, old: bool = False) -> event_pb2.Event:
    """The event of its serialised form; `old`: 0.1.0 stored it.

    Raises:
        StoreDamagedError: it is not one.
    """
    with _reading("an event"):
        event = event_pb2.Event.FromString(payload)
        if old:
            _complete(event)
        return event


def _complete(event: event_pb2.Event) -> None:
    """Say what 0.1.0 left to be guessed, and leave out what has become a result."""
    event.DiscardUnknownFields()
    if event.HasField("metrics_recorded"):
        event.metrics_recorded.of_step = legacy.of_step(list(event.metrics_recorded.values))
    if event.HasField("state_changed"):
        job = event.state_changed.job
        kind = legacy.kind_of("tune" if job.spec.purpose == job_pb2.PURPOSE_TUNE else "train", job.spec.data)
        metrics, job.sample_unit = legacy.declared_of(kind)
        job.kind = kind_to_proto(kind)
        job.metrics.extend(map(metric_to_proto, metrics))
