"""What a person may do to a job. Each verb checks, stores the wish with its event, and wakes the supervisor.

A wish for a living process is stored as its desired state; the job's state follows when the process has obeyed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from m1.errors import M1Error, Reason, nearest, shortened
from m1.failpoints import reach
from m1.jobdir import Want, checkpoint_path
from m1.paths import Home
from m1.v1 import event_pb2, job_pb2

from m1d.events.emit import change_state, emit, tell_state
from m1d.events.hub import Hub
from m1d.jobs import recipe_file as recipe_files
from m1d.jobs.job import Checkpoint, Job
from m1d.jobs.parent import Seed, copy_checkpoint, read_seed, remove_copy, remove_strays
from m1d.jobs.states import FINAL, JobState
from m1d.processes.process import is_training
from m1d.running.supervisor import Supervisor
from m1d.store import Store
from m1d.verbs.submission import Submission

_log = logging.getLogger(__name__)

_TRASH = ".deleted-"
_ID = re.compile(r"j[1-9][0-9]{0,15}")
_STEP = re.compile(r"0|[1-9][0-9]{0,15}")


class Verbs:
    """The verbs of the job and checkpoint services, over the store. Used from the event loop's thread."""

    def __init__(self, home: Home, store: Store, hub: Hub, supervisor: Supervisor, clock: Callable[[], float]) -> None:
        self._home = home
        self._store = store
        self._hub = hub
        self._supervisor = supervisor
        self._clock = clock

    # Finding

    def find(self, reference: str) -> Job:
        """The job of an id or a name; of "" the one that holds the machine.

        Raises:
            M1Error: JOB_NOT_FOUND.
        """
        if not reference:
            job = self._supervisor.active()
            if job is None:
                raise M1Error(
                    Reason.JOB_NOT_FOUND, "no job runs now", "name one; m1ctl list shows them all", field="job"
                )
            return job
        job = self._store.job_by_name(reference)
        if job is None and _ID.fullmatch(reference):
            job = self._store.job(int(reference[1:]))
        if job is None:
            raise M1Error(
                Reason.JOB_NOT_FOUND,
                f'there is no job "{shortened(reference)}"',
                nearest(reference, self._store.newest_names(200)) + "; m1ctl list shows them all",
                field="job",
                value=reference,
            )
        return job

    def find_checkpoint(self, reference: str) -> tuple[Job, Checkpoint]:
        """The checkpoint of an id, with its job.

        Raises:
            M1Error: CHECKPOINT_NOT_FOUND or JOB_NOT_FOUND.
        """
        job_part, _, step = reference.rpartition("@")
        if job_part and _STEP.fullmatch(step):
            job = self.find(job_part)
            checkpoint = self._store.checkpoint(job.number, int(step))
            if checkpoint:
                return job, checkpoint
        raise M1Error(
            Reason.CHECKPOINT_NOT_FOUND,
            f'there is no checkpoint "{shortened(reference)}"',
            'an id is "<job>@<step>"; m1ctl checkpoints JOB shows them',
            field="checkpoint",
            value=reference,
        )

    # Jobs

    def find_seed(self, reference: str) -> Seed | None:
        """The checkpoint that a job shall begin with, by id or by the absolute path of its directory; None for "".

        Raises:
            M1Error: CHECKPOINT_NOT_FOUND, JOB_NOT_FOUND or BAD_CHECKPOINT.
        """
        if not reference:
            return None
        if os.path.isabs(reference):
            return read_seed(Path(reference))
        job, checkpoint = self.find_checkpoint(reference)
        return read_seed(checkpoint_path(self._home.job(job.id), checkpoint.step))

    async def submit(self, submission: Submission, request_id: str, *, validate_only: bool) -> Job:
        """Store a checked job; the same request_id twice is the same job.

        Raises:
            M1Error: NAME_TAKEN, or BAD_CHECKPOINT for a seed that cannot be copied.
        """
        if validate_only or submission.seed is None:
            return self._submit(submission, request_id, "", validate_only=validate_only)
        # Refused before anything is copied, where that is possible.
        would_be = self._submit(submission, request_id, "", validate_only=True)
        if would_be.number:
            return would_be
        copy = await asyncio.to_thread(copy_checkpoint, self._home, submission.seed)
        try:
            job = self._submit(submission, request_id, copy, validate_only=False)
        except BaseException:
            remove_copy(self._home, copy)
            raise
        if job.seed != copy:  # the same request came twice at once
            remove_copy(self._home, copy)
        return job

    def _submit(self, submission: Submission, request_id: str, copy: str, *, validate_only: bool) -> Job:
        if request_id:
            known = self._store.job_by_request(request_id)
            if known:
                return _same(known, submission)
        now = self._clock()
        name = submission.name or self._free_name(submission)
        file = submission.file
        taken = self._store.job_by_name(name)
        if taken:
            raise M1Error(
                Reason.NAME_TAKEN,
                f'the name "{name}" is taken by {taken.id}',
                "choose another, or leave it out",
                field="name",
                value=name,
            )
        job = Job(
            number=0,
            name=name,
            recipe=submission.recipe,
            data=submission.data,
            settings=submission.settings,
            profile=submission.profile,
            priority=submission.priority,
            position=self._store.last_position(submission.priority) + 1,
            create_time=now,
            request_id=request_id or None,
            retries=submission.retries,
            from_checkpoint=submission.from_checkpoint,
            seed=copy,
            recipe_file=file.of_class(submission.recipe) if file else None,
            purpose=submission.purpose,
            fixed=submission.fixed if submission.purpose == "tune" else (),
            reason="submitted",
            times={JobState.QUEUED.value: now},
        )
        if validate_only:
            return job
        with self._store.transaction() as tx:
            job = tx.insert_job(job)
            if file:
                recipe_files.keep(self._home, job.id, file.content)
            tell_state(tx, job, now, job_pb2.JOB_STATE_UNSPECIFIED)
        self._supervisor.wake()
        return job

    def _free_name(self, submission: Submission) -> str:
        # A class of a user's file may be called what a job may not.
        stem = re.sub("[^a-z0-9]+", "-", submission.recipe.lower()).strip("-")[:40] or "recipe"
        if submission.purpose == "tune":
            stem = f"tune-{stem}"
        number = self._store.next_number()
        while self._store.job_by_name(f"{stem}-{number}"):
            number += 1
        return f"{stem}-{number}"

    def pause(self, job: Job, *, hold: bool) -> Job:
        """Ask a job to yield, or to hold.

        Raises:
            M1Error: WRONG_STATE.
        """
        if hold:
            if job.state not in {JobState.STARTING, JobState.RUNNING, JobState.HELD}:
                raise _wrong_state(job, "hold", "only a job that runs can be held")
            if job.want == Want.STOP:
                raise _wrong_state(job, "hold", "it was cancelled and is about to end")
            return job if job.state == JobState.HELD else self._wish(job, want=Want.HOLD)
        if job.state == JobState.QUEUED:
            with self._store.transaction() as tx:
                return change_state(tx, job, JobState.PAUSED, "paused before its turn", self._clock())
        if job.state in {JobState.YIELDING, JobState.PAUSED} and not job.parked:
            return job
        if job.want == Want.STOP or not job.active:
            raise _wrong_state(job, "pause", "only a job that is queued or runs can be paused")
        return self.yield_machine(job, "pause was asked for")

    def yield_machine(self, job: Job, reason: str, *, park: bool = False) -> Job:
        """Ask an active job to checkpoint and go; with `park`, to come back with the next daemon."""
        # A job that somebody holds does not start to train by itself after a restart.
        parked = park and job.want == Want.RUN
        if job.state == JobState.YIELDING:
            return job
        with self._store.transaction() as tx:
            job = change_state(tx, job, JobState.YIELDING, reason, self._clock(), want=Want.YIELD, parked=parked)
        return self._tell(job)

    def resume(self, job: Job) -> Job:
        """Queue a paused job at the head of its priority, or let a held one go on.

        Raises:
            M1Error: WRONG_STATE.
        """
        if job.state == JobState.PAUSED:
            with self._store.transaction() as tx:
                head = self._store.head_position(job.priority)
                job = change_state(tx, job, JobState.QUEUED, "resumed", self._clock(), position=head, parked=False)
            self._supervisor.wake()
            return job
        if job.want == Want.HOLD:
            return self._wish(job, want=Want.RUN)
        if job.state == JobState.YIELDING:
            raise _wrong_state(job, "resume", "wait until it is PAUSED")
        if job.state in {JobState.FAILED, JobState.CANCELLED}:
            raise _wrong_state(job, "resume", f"m1ctl retry {job.name} goes on from its newest checkpoint")
        raise _wrong_state(job, "resume", "only a job that is paused or held can be resumed")

    def cancel(self, job: Job) -> Job:
        """End a job: at once if it has no process, else as soon as that has stopped.

        Raises:
            M1Error: WRONG_STATE.
        """
        if job.state in {JobState.QUEUED, JobState.PAUSED}:
            with self._store.transaction() as tx:
                return change_state(tx, job, JobState.CANCELLED, "cancelled", self._clock(), parked=False)
        if not job.active:
            raise _wrong_state(job, "cancel", "it is over already")
        return self._wish(job, want=Want.STOP)

    def retry(self, job: Job) -> Job:
        """Queue a failed or cancelled job again; it goes on from its newest checkpoint.

        Raises:
            M1Error: WRONG_STATE.
        """
        if job.state not in {JobState.FAILED, JobState.CANCELLED}:
            raise _wrong_state(job, "retry", "only a job that failed or was cancelled can be retried")
        with self._store.transaction() as tx:
            position = self._store.last_position(job.priority) + 1
            job = change_state(
                tx, job, JobState.QUEUED, "retried", self._clock(), position=position, failures=0, not_finite_step=None
            )
        self._supervisor.wake()
        return job

    def delete(self, job: Job) -> None:
        """Remove a job that is over, with all that belongs to it.

        Raises:
            M1Error: WRONG_STATE.
        """
        if job.state not in FINAL:
            raise _wrong_state(job, "delete", f"m1ctl cancel {job.name} ends it first")
        directory = self._home.job(job.id)
        trash = directory.with_name(_TRASH + job.id)
        reach("before.delete")
        with self._set_aside(directory, trash), self._store.transaction() as tx:
            reach("within.delete")
            tx.delete_job(job)
            emit(tx, job, self._clock(), job_deleted=event_pb2.JobDeleted())
        reach("after.delete")
        if job.seed:
            remove_copy(self._home, job.seed)
        if trash.exists():
            shutil.rmtree(trash)

    def tidy(self) -> None:
        """Finish or undo what an earlier daemon died in: a job that is stored keeps its directory and its seed.

        Where the database was replaced by an older one or an empty one, no new job gets the directory of an old one.
        """
        for directory in [path for path in self._home.jobs.iterdir() if _ID.fullmatch(path.name)]:
            if self._store.job(int(directory.name[1:])) is None:
                recipe_files.remove_stray(directory)
        known = [int(path.name[1:]) for path in self._home.jobs.iterdir() if _ID.fullmatch(path.name)]
        self._store.use_no_number_below(max(known, default=0) + 1)
        remove_strays(self._home, self._store.seeds())
        for trash in self._home.jobs.glob(_TRASH + "j*"):
            job_id = trash.name.removeprefix(_TRASH)
            if job_id[1:].isdecimal() and self._store.job(int(job_id[1:])):
                trash.rename(self._home.job(job_id))
            else:
                shutil.rmtree(trash)

    # Checkpoints

    async def create_checkpoint(self, job: Job) -> Checkpoint:
        """Ask for a checkpoint and return it when it is durable.

        Raises:
            M1Error: WRONG_STATE, when the job does not train, or stops before it has made one; SHUTTING_DOWN.
        """
        if job.measures:
            raise _wrong_state(job, "checkpoint", "it measures, and a measurement makes none")
        if job.state not in {JobState.RUNNING, JobState.HELD} or job.want == Want.STOP:
            raise _wrong_state(job, "checkpoint", "only a job that runs or is held can make one")
        request = job.checkpoint_request + 1
        self._wish(job, checkpoint_request=request)
        while True:
            now = self._store.job(job.number)
            if now is None:
                raise M1Error(Reason.JOB_NOT_FOUND, f"{job.id} was deleted before it could make a checkpoint")
            if now.checkpoint_served >= request:
                return self._store.checkpoints(job.number, limit=1)[0]
            if not now.active:
                raise _wrong_state(now, "checkpoint", "it ended before it could make one")
            if self._hub.closed:
                raise M1Error(Reason.SHUTTING_DOWN, "the daemon stops", "ask again when it is back")
            await self._hub.wait()

    def delete_checkpoint(self, job: Job, checkpoint: Checkpoint) -> None:
        """Remove a checkpoint of a job that does not train and does not need it to go on.

        Raises:
            M1Error: WRONG_STATE.
        """
        if job.active or is_training(self._home.job(job.id)):
            raise _wrong_state(job, "delete a checkpoint of", "pause it first")
        newest = self._store.checkpoints(job.number, limit=1)[0]
        if job.state in {JobState.QUEUED, JobState.PAUSED} and newest.step == checkpoint.step:
            raise _wrong_state(job, "delete the newest checkpoint of", "it is what the job will go on from")
        directory = checkpoint_path(self._home.job(job.id), checkpoint.step)
        trash = directory.with_name(_TRASH + directory.name)
        reach("before.discard")
        with self._set_aside(directory, trash), self._store.transaction() as tx:
            reach("within.discard")
            tx.delete_checkpoint(job.number, checkpoint.step)
            deleted = event_pb2.CheckpointDeleted(checkpoint_id=checkpoint.id, reason="request")
            emit(tx, job, self._clock(), checkpoint_deleted=deleted)
        reach("after.discard")
        if trash.exists():
            shutil.rmtree(trash)

    @contextmanager
    def _set_aside(self, directory: Path, trash: Path) -> Iterator[None]:
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

    # Wishes

    def _wish(self, job: Job, **changes: object) -> Job:
        """Store a wish to a living process, which changes no state by itself, and tell it."""
        job = replace(job, **changes)  # type: ignore[arg-type]
        with self._store.transaction() as tx:
            tx.update_job(job)
        return self._tell(job)

    def _tell(self, job: Job) -> Job:
        try:
            self._supervisor.tell(job)
        except OSError as error:
            # It is stored, and so it holds; the supervisor tells it when the disk allows.
            _log.error("%s (%s) could not be told what is wanted, which is tried again: %s", job.id, job.name, error)
        self._supervisor.wake()
        return job


def _same(known: Job, submission: Submission) -> Job:
    """The job that a request made before, if it is what the request asks for now; a default may have changed since."""
    file = submission.file.of_class(submission.recipe) if submission.file else None
    before = (
        known.recipe,
        known.recipe_file,
        known.data,
        dict(known.settings),
        known.purpose,
        [getattr(known.profile, name) for name in submission.fixed],
        known.priority,
        known.from_checkpoint,
    )
    now = (
        submission.recipe,
        file,
        submission.data,
        dict(submission.settings),
        submission.purpose,
        [getattr(submission.profile, name) for name in submission.fixed],
        submission.priority,
        submission.from_checkpoint,
    )
    if before != now or submission.name not in {"", known.name}:
        raise M1Error(
            Reason.INVALID_ARGUMENT,
            f"the request_id belongs to {known.id} ({known.name}), which is another job than the one asked for",
            "choose a new one for a new job",
            field="request_id",
            value=known.request_id or "",
        )
    return known


def _wrong_state(job: Job, verb: str, way_out: str) -> M1Error:
    return M1Error(
        Reason.WRONG_STATE,
        f"cannot {verb} {job.id} ({job.name}) while it is {job.state.value}",
        way_out,
        field="job",
        value=job.id,
    )
