"""Finding what a job has made beside its weights: rows of the store with files of the job, or what 0.1.0 said."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from m1 import legacy
from m1.errors import M1Error, Reason, nearest, shortened
from m1.jobdir import result_path
from m1.journal import Result
from m1.legacy import MadeResult
from m1.limits import RESULT_BYTES

from m1d.jobs.job import Job
from m1d.verbs.parts import Parts


def list_results(parts: Parts, job: Job) -> list[Result]:
    """List the results of a job, the newest last; of each name the newest one."""
    stored = parts.store.results(job.number)
    names = {result.name for result in stored}
    return [made.result for made in _made(job) if made.result.name not in names] + stored


def find_result(parts: Parts, job: Job, name: str) -> Result | MadeResult:
    """Find the result of a name: one with a file, or one of 0.1.0 that is made here.

    Raises:
        M1Error: RESULT_NOT_FOUND.
    """
    stored = parts.store.result(job.number, name)
    if stored:
        return stored
    for made in _made(job):
        if made.result.name == name:
            return made
    raise _not_found(
        name,
        f'{job.id} ({job.name}) has no result "{shortened(name)}"',
        nearest(name, (result.name for result in list_results(parts, job))),
    )


def open_result(directory: Path, result: Result) -> tuple[BinaryIO, int]:
    """Open a result's file in the job's directory, and tell its size in bytes.

    One that is replaced meanwhile is read to its end as it was.

    Raises:
        M1Error: RESULT_NOT_FOUND, where the file is gone or none of ours; TOO_LARGE.
    """
    path = result_path(directory, result.name, result.form)
    try:
        file = open(path, "rb", opener=_no_link)  # noqa: SIM115 - the caller closes it
    except OSError as error:
        message = f'the file of the result "{result.name}" cannot be read ({error})'
        raise _not_found(result.name, message, "a job that trains makes it again") from error
    found = os.fstat(file.fileno())
    if stat.S_ISREG(found.st_mode) and found.st_size <= RESULT_BYTES:
        return file, found.st_size
    file.close()
    if not stat.S_ISREG(found.st_mode):
        raise _not_found(result.name, f'"{path}" is not a regular file', "a job that trains makes it again")
    message = f'"{path}" has {found.st_size} bytes, and a result may have {RESULT_BYTES}'
    raise M1Error(Reason.TOO_LARGE, message, "something else has written it", field="name", value=result.name)


def _made(job: Job) -> list[MadeResult]:
    return legacy.results(job.from_0_1_0, job.progress.step, max(job.times.values(), default=job.create_time))


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _not_found(name: str, message: str, hint: str) -> M1Error:
    return M1Error(Reason.RESULT_NOT_FOUND, message, hint, field="name", value=name)
