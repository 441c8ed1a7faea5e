"""Removing a job or a checkpoint, and finishing or undoing what an earlier daemon died in.

What goes is renamed first, so that what was not stored has not happened, and what was stored is not seen any more.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from m1.failpoints import reach
from m1.jobdir import checkpoint_path
from m1.limits import JOB_ID
from m1.v1 import event_pb2

from m1d.events.emit import emit
from m1d.jobs import parent
from m1d.jobs import recipe_file as recipe_files
from m1d.jobs.job import Checkpoint, Job
from m1d.jobs.states import JobState
from m1d.processes.training import is_training
from m1d.verbs.parts import Parts
from m1d.verbs.wishes import wrong_state

_TRASH = ".deleted-"


def delete(parts: Parts, job: Job) -> None:
    """Remove a job that is over, with all that belongs to it.

    Raises:
        M1Error: WRONG_STATE.
    """
    if not job.final:
        raise wrong_state(job, "delete", f"m1ctl cancel {job.name} ends it first")
    directory = parts.home.job(job.id)
    trash = directory.with_name(_TRASH + job.id)
    reach("before.delete")
    with _set_aside(directory, trash), parts.store.transaction() as tx:
        reach("within.delete")
        tx.delete_job(job)
        emit(tx, job, parts.clock(), job_deleted=event_pb2.JobDeleted())
    reach("after.delete")
    if job.parent_copy:
        parent.remove_copy(parts.home, job.parent_copy)
    if trash.exists():
        shutil.rmtree(trash)


def delete_checkpoint(parts: Parts, job: Job, checkpoint: Checkpoint) -> None:
    """Remove a checkpoint of a job that does not train and does not need it to go on.

    Raises:
        M1Error: WRONG_STATE.
    """
    if job.active or is_training(parts.home.job(job.id)):
        raise wrong_state(job, "delete a checkpoint of", "pause it first")
    if job.state in {JobState.QUEUED, JobState.PAUSED} and parts.store.newest_step(job.number) == checkpoint.step:
        raise wrong_state(job, "delete the newest checkpoint of", "it is what the job will go on from")
    directory = checkpoint_path(parts.home.job(job.id), checkpoint.step)
    trash = directory.with_name(_TRASH + directory.name)
    reach("before.discard")
    with _set_aside(directory, trash), parts.store.transaction() as tx:
        reach("within.discard")
        tx.delete_checkpoint(job.number, checkpoint.step)
        deleted = event_pb2.CheckpointDeleted(checkpoint_id=checkpoint.id, reason="request")
        emit(tx, job, parts.clock(), checkpoint_deleted=deleted)
    reach("after.discard")
    if trash.exists():
        shutil.rmtree(trash)


@contextmanager
def _set_aside(directory: Path, trash: Path) -> Iterator[None]:
    """Rename a directory for a deletion that the block stores; what was not stored has not happened."""
    there = directory.exists()
    if there:
        directory.rename(trash)
    try:
        yield
    except BaseException:
        if there:
            trash.rename(directory)
        raise


def tidy(parts: Parts) -> None:
    """Finish or undo what an earlier daemon died in: a job that is stored keeps its directory and its parent's copy.

    Where the database was replaced by an older one or an empty one, no new job gets the directory of an old one.
    """
    home, store = parts.home, parts.store
    for directory in [path for path in home.jobs.iterdir() if JOB_ID.fullmatch(path.name)]:
        if store.job(int(directory.name[1:])) is None:
            recipe_files.remove_stray(directory)
    known = [int(path.name[1:]) for path in home.jobs.iterdir() if JOB_ID.fullmatch(path.name)]
    store.use_no_number_below(max(known, default=0) + 1)
    parent.remove_strays(home, store.parent_copies(parent.COPY))
    for trash in home.jobs.glob(_TRASH + "j*"):
        job_id = trash.name.removeprefix(_TRASH)
        if job_id[1:].isdecimal() and store.job(int(job_id[1:])):
            trash.rename(home.job(job_id))
        else:
            shutil.rmtree(trash)
