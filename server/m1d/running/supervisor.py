"""The supervisor: keeps one training process going, the one whose turn it is.

It is level-triggered. Every turn looks at what is stored and at what lives, and takes the next step from there, so it
does not matter whether the daemon has been here all the time or has just come back:

    a job holds the machine, its process lives      take in its journal
    a job holds the machine, its process is gone    take in the rest of its journal, then settle the job
    no job holds the machine                        start the one whose turn it is
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from m1 import journal
from m1.cgroup import oom_kills
from m1.errors import M1Error, Reason, shortened
from m1.failpoints import reach
from m1.jobdir import Desired, Want, has_spec, spec_path, write_desired, write_spec
from m1.paths import Home
from m1.spec import in_directory
from m1.v1 import event_pb2

from m1d.catalogue.profiles import Profiles
from m1d.events.emit import change_state, notice
from m1d.jobs.job import Attempt, Job, JobError, Process
from m1d.jobs.parent import move_in
from m1d.jobs.states import ACTIVE, JobState
from m1d.processes import training
from m1d.processes.environment import training_environment
from m1d.processes.leftovers import NO_SESSION, end_leftovers
from m1d.processes.spawn import OF_THE_MACHINE, refusal
from m1d.running.fault import Fault, is_suspect
from m1d.running.ingest import ingest
from m1d.running.left_behind import LeftBehind, last_attempt
from m1d.running.settle import Ending, settle
from m1d.store import Store, Transaction

_log = logging.getLogger(__name__)

# How soon a record of the training process is seen: 50 looks a second cost one read each.
POLL_S = 0.02
# After a refusal of the disk or the database.
RETRY_S = 2.0
# How long a process may take to obey `stop` before it is killed; a checkpoint in the making is whole or absent.
STOP_GRACE_S = 20.0


class Supervisor:
    """One training process at a time. Used from the event loop's thread."""

    def __init__(
        self,
        home: Home,
        store: Store,
        profiles: Profiles,
        environment: Mapping[str, str],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        """`environment` is what of the daemon's reaches a training process."""
        self._home = home
        self._store = store
        self._profiles = profiles
        self._environment = environment
        self._clock = clock
        self._monotonic = monotonic
        self._wake = asyncio.Event()
        self._stopping = False
        self._may_start = True
        self._kill_at: float | None = None
        # The job whose current attempt this daemon started; 0 if it adopted it, or came too late.
        self._started_here = 0
        # The job whose current attempt lived while this daemon did.
        self._seen_living = 0
        self._oom_kills: int | None = None
        # What the training process was told last, by this daemon: the job, its attempt, and the wish.
        self._told: tuple[int, int, Desired] | None = None
        # The job and its attempt whose journal was found to be theirs.
        self._journal: tuple[int, int] | None = None
        self._fault = Fault(monotonic)
        # How a process ended that may never have got as far as its job, while it is not known why.
        self._suspect = ""

    @property
    def fault(self) -> str:
        """Why no job can be started on this machine now, in words; empty: nothing is known to be wrong."""
        return self._fault.words

    def active(self) -> Job | None:
        """The job that holds the machine."""
        jobs = self._store.jobs(ACTIVE, limit=2)
        assert len(jobs) <= 1, [job.id for job in jobs]
        return jobs[0] if jobs else None

    def wake(self) -> None:
        """Look again now: what is stored has changed."""
        self._wake.set()

    def tell(self, job: Job) -> None:
        """Let an active job's process know what is wanted, if it has not been told.

        Raises:
            OSError: the disk refuses; the next turn tries again.
        """
        wish = (job.number, job.attempt.number, job.desired)
        if self._told == wish:
            return
        self._told = None
        reach("before.desired")
        write_desired(self._home.job(job.id), job.desired)
        reach("after.desired")
        self._told = wish

    def start_nothing(self) -> None:
        """From now on start no training process; what lives is looked after as before."""
        self._may_start = False

    def stop(self) -> None:
        """End `run` after one more turn. The training goes on."""
        self._stopping = True
        self._fault.look_no_longer()
        self.wake()

    async def run(self) -> None:
        """Turn after turn, until `stop`. A disk or a database that refuses is reported and tried again."""
        recovered, said = False, ""
        while not self._stopping:
            self._wake.clear()
            try:
                if not recovered:
                    self._recover()
                    recovered = True
                pause_s = await self._next()
                said = ""
            except (OSError, sqlite3.Error) as error:
                if str(error) != said:
                    said = str(error)
                    _log.error("the supervisor could not go on and tries again every %g s: %s", RETRY_S, error)
                pause_s = RETRY_S
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
        try:
            job = self.active()
            if job:
                self._take_in(job)
        except (OSError, sqlite3.Error) as error:
            _log.error("what was journalled last is left to the next daemon: %s", error)

    async def _next(self) -> float | None:
        """Take the next step; how long until there may be another one, None: as soon as something changes."""
        if self._fault.words and self.active() is None:
            waiting = self._store.next_in_turn()
            if waiting and not await self._is_mended(waiting):
                return self._fault.left_s()
            self._fault.lifted()
        busy = bool(self._suspect) or self._turn()
        if self._suspect:
            await self._clear_up(self._suspect)
        return POLL_S if busy else None

    def _turn(self) -> bool:
        """Take the next step; whether there may be another one soon."""
        waits = self._left_behind.see_off()
        job = self.active()
        if job is None:
            if waits:
                return True
            following = self._store.next_in_turn() if self._may_start else None
            if following is None:
                return False
            self._start(following)
            return True
        alive = training.is_training(self._home.job(job.id))
        # In this order: what it wrote before it died is there when it is seen to be dead.
        offset = job.attempt.journal_offset
        job = self._take_in(job)
        if job.attempt.journal_offset:
            self._fault.mended()
        if alive:
            job = self._acquaint(job)
            self.tell(job)
            self._enforce_stop(job)
        elif job.attempt.journal_offset == offset:  # of a long journal one turn takes in a part
            ended = job.attempt.process
            ending = training.ending(ended) if ended else ""
            if ending is not None:
                self._suspect = ending if is_suspect(job, ending) else ""
                if not self._suspect:
                    self._settle(job, ending)
            else:
                self._enforce_stop(job)  # it dies just now, or somebody has removed its directory
        return True

    # Starting

    def _recover(self) -> None:
        """Put right what an earlier daemon left: tell an adopted process the wish again, unpark what was parked."""
        job = self.active()
        self._left_behind = LeftBehind(self._home, {job.id} if job else (), self._monotonic)
        if job:
            if training.is_training(self._home.job(job.id)):
                reach("before.adopt")
                adopted = job.attempt.process
                _log.info("adopted %s (%s), process %s", job.id, job.name, adopted and adopted.pid)
                self._seen_living = job.number
                self.tell(job)
                reach("after.adopt")
            else:
                _log.warning("the training process of %s (%s) is gone", job.id, job.name)
        self._unpark()

    def _unpark(self) -> None:
        """Queue what a daemon parked to stop: this one is there."""
        for parked in self._store.jobs([JobState.PAUSED]):
            if parked.wish.parked:
                head = self._store.head_position(parked.spec.priority)
                back = replace(parked, position=head, wish=replace(parked.wish, parked=False))
                with self._store.transaction() as tx:
                    change_state(tx, back, JobState.QUEUED, "the daemon is back", self._clock())

    def _start(self, job: Job) -> None:
        before, directory = job.attempt, self._home.job(job.id)
        # In a database that was put back there are fewer than there have been.
        number = max(before.number, last_attempt(directory)) + 1
        attempt = Attempt(number=number, begun_at_step=before.begun_at_step)
        with self._store.transaction() as tx:
            job = change_state(tx, replace(job, attempt=attempt), JobState.STARTING, "its turn", self._clock())
        self._kill_at = None
        self._started_here = self._seen_living = job.number
        self._oom_kills = oom_kills()
        try:
            self._prepare_directory(directory, job)
            environment = training_environment(self._environment, job.spec.profile.threads)
            command = training.keeper_command if job.kind == "program" else partial(training.train_command, "run")
            started = training.start_process(
                directory, command(str(directory), "--attempt", str(attempt.number)), environment
            )
        except M1Error as refused:
            self._put_back(replace(job, attempt=before), refused)
            return
        except OSError as error:
            if error.errno in OF_THE_MACHINE:
                self._put_back(replace(job, attempt=before), refusal(error))
                return
            _log.error("%s (%s) could not be started: %s", job.id, job.name, error)
            failure = JobError(Reason.PROCESS_DIED.value, f"the training process could not be started: {error}")
            with self._store.transaction() as tx:
                change_state(tx, job, JobState.FAILED, failure.message, self._clock(), error=failure)
            return
        with self._store.transaction() as tx:
            tx.update_job(replace(job, attempt=replace(attempt, process=started)))
        _log.info("started %s (%s), attempt %d, process %d", job.id, job.name, attempt.number, started.pid)

    # What no job is to blame for

    def _put_back(self, job: Job, fault: M1Error) -> None:
        """Queue a job that this machine could not start, at the head of the line, and say why once."""
        head = self._store.head_position(job.spec.priority)
        with self._store.transaction() as tx:
            job = replace(job, position=head)
            job = change_state(tx, job, JobState.QUEUED, fault.message, self._clock(), want=job.wish.want)
            self._tell_fault(tx, job, fault)

    def _tell_fault(self, tx: Transaction, job: Job, fault: M1Error) -> None:
        if self._fault.met(str(fault)):
            _log.error("%s", fault)
            told = f"{fault}; what is queued waits for that"
            notice(tx, job, self._clock(), event_pb2.SEVERITY_ERROR, told)

    async def _is_mended(self, waiting: Job) -> bool:
        """Try, when it is time to, whether a job's process could be started again."""
        if self._fault.left_s() > 0:
            return False
        fault = await self._fault.look(waiting, self._environment)
        if fault:
            with self._store.transaction() as tx:
                self._tell_fault(tx, waiting, fault)
        return fault is None and not self._stopping

    async def _clear_up(self, ending: str) -> None:
        """Find out whose fault it was that a process ended before it had said a word, and settle its job by that."""
        job = self.active()
        assert job is not None
        fault = await self._fault.look(job, self._environment)
        if self._stopping:  # the next daemon takes it from here
            return
        self._suspect, job = "", self.active()
        assert job is not None
        if fault and job.state in {JobState.STARTING, JobState.RUNNING} and job.wish.want in {Want.RUN, Want.HOLD}:
            self._put_back(job, fault)
        else:
            self._settle(job, ending)

    def _prepare_directory(self, directory: Path, job: Job) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._put_spec(directory, job)
        if job.parent_copy:
            move_in(self._home, job.parent_copy, directory)
        self.tell(job)

    def _put_spec(self, directory: Path, job: Job) -> None:
        """Write the spec where it is not there, or not the job's; of a home that was moved only the path differs."""
        spec = in_directory(job.spec, job.id, str(self._home.data), has_parent=bool(job.parent_copy))
        if has_spec(directory, spec):
            return
        changed = spec_path(directory).exists() and not has_spec(directory, spec, anywhere=True)
        write_spec(directory, spec)
        if changed:
            told = f'"{spec_path(directory)}" was not what the job was submitted with, and was written anew'
            with self._store.transaction() as tx:
                notice(tx, job, self._clock(), event_pb2.SEVERITY_WARNING, told)

    # While it lives

    def _take_in(self, job: Job) -> Job:
        """Store what the journal has beyond the last record that was stored."""
        if job.attempt.journal_damaged:
            return job
        path = journal.journal_path(self._home.job(job.id), job.attempt.number)
        entries: list[journal.Entry] = []
        try:
            # The first record says whose it is: another one may have been put there while nobody looked.
            attempt = (job.number, job.attempt.number)
            if self._journal != attempt and next(journal.read_journal(path, 0, limit_bytes=4096), None):
                self._journal = attempt
            for entry in journal.read_journal(path, job.attempt.journal_offset):
                entries.append(entry)  # noqa: PERF402 - what was read before the damage counts
        except journal.JournalDamagedError as damage:
            job = self._ingest(job, entries)
            job = replace(job, attempt=replace(job.attempt, journal_damaged=True))
            _log.error("%s", damage)
            with self._store.transaction() as tx:
                notice(tx, job, self._clock(), event_pb2.SEVERITY_ERROR, str(damage))
                tx.update_job(job)
            return job
        return self._ingest(job, entries)

    def _ingest(self, job: Job, entries: Sequence[journal.Entry]) -> Job:
        for entry in entries:
            if job.kind == "tuning" and isinstance(entry.record, journal.Findings):
                # First: whoever dies in between takes the record in, and keeps the same profile, again.
                self._profiles.keep(job, entry.record, entry.time)
        return ingest(self._store, job, entries)

    def _acquaint(self, job: Job) -> Job:
        """Learn which process an attempt has, when the daemon that started it died before it had stored that."""
        if job.attempt.process or job.attempt.journal_damaged:
            return job
        path = journal.journal_path(self._home.job(job.id), job.attempt.number)
        first = next(journal.read_journal(path, 0), None)
        if first is None or not isinstance(first.record, journal.Started):
            return job
        with suppress(ProcessLookupError):
            found = Process(first.record.pid, training.start_mark(first.record.pid))
            job = replace(job, attempt=replace(job.attempt, process=found))
            with self._store.transaction() as tx:
                tx.update_job(job)
        return job

    def _enforce_stop(self, job: Job) -> None:
        """Kill a process that does not obey `stop`."""
        if job.wish.want != Want.STOP:
            return
        now = self._monotonic()
        if self._kill_at is None:
            self._kill_at = now + STOP_GRACE_S
        elif now >= self._kill_at and (living := job.attempt.process):
            _log.warning("%s does not stop: killing process %d", job.id, living.pid)
            training.kill(living)
            self._kill_at = now + STOP_GRACE_S

    # When it is gone

    def _end_leftovers(self, job: Job) -> None:
        """Kill what a job's process has left running, and say so."""
        process = job.attempt.process
        # After a reboot the session's number is somebody else's: that of a process which this daemon saw is not.
        known = process is not None and self._seen_living == job.number
        left = end_leftovers(str(self._home.job(job.id)), process.pid if process and known else NO_SESSION)
        if left:
            told = f"the job left processes running, which were killed: {', '.join(left)}"
            with self._store.transaction() as tx:
                notice(tx, job, self._clock(), event_pb2.SEVERITY_WARNING, shortened(told, 300))

    def _settle(self, job: Job, ending: str) -> None:
        """Move a job on whose process has ended."""
        self._end_leftovers(job)
        oom = self._oom_kills is not None and self._oom_kills != oom_kills()
        now = self._clock()
        reach("before.settle")
        with self._store.transaction() as tx:
            for following in settle(
                job,
                Ending(ending, watched=self._started_here == job.number, oom=oom),
                newest_step=self._store.newest_step(job.number),
                head=self._store.head_position(job.spec.priority),
            ):
                job = change_state(
                    tx,
                    following.applied(job),
                    following.state,
                    following.reason,
                    now,
                    want=following.want,
                    error=following.error,
                )
        reach("after.settle")
        _log.info("%s (%s) is %s: %s", job.id, job.name, job.state.value, job.reason)
        if self._may_start and not self._stopping:
            # Parked by a daemon that died before it had stopped.
            self._unpark()
