"""Jobs and checkpoints as rows: the columns that queries need, and the rest as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from m1.jobdir import Profile, RecipeFile, Want
from m1.journal import Exited, Finding

from m1d.job import Checkpoint, Job, JobError, Process, Progress, Report
from m1d.states import JobState

_COLUMNS = ("number", "name", "request_id", "state", "priority", "position")


def job_to_row(job: Job) -> dict[str, Any]:
    """The columns of a job."""
    body = asdict(job)
    row = {name: body.pop(name) for name in _COLUMNS}
    end_time = job.times[job.state.value] if job.final else None
    return row | {"end_time": end_time, "body": json.dumps(body)}


def job_from_row(row: dict[str, Any]) -> Job:
    """The job of a row."""
    body = json.loads(row["body"])
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
    """The checkpoint of its JSON."""
    return Checkpoint(**json.loads(body))
