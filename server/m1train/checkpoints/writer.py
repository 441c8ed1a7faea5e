"""Writes checkpoints in a thread of its own: the training stops only as long as copying the state takes.

The loop hands over a snapshot and goes on; the file work, the journal record and the removal of what is not kept happen
here, one checkpoint after the other. At most one waits while another is written.
A checkpoint that cannot be written is a notice; whoever needs it durable asks `wait_for`. On a disk without room for
another one an older one goes first, but neither the newest nor the best.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from m1.checkpoint_state import Best, State
from m1.durable import out_of_space
from m1.errors import M1Error, Reason
from m1.failpoints import reach
from m1.jobdir import checkpoint_steps
from m1.journal import CheckpointRemoved, CheckpointWritten, Notice
from m1.metrics import Metric
from m1.process.journal import Journal

from m1train.checkpoints import files as checkpoint
from m1train.checkpoints.files import Checkpoint
from m1train.checkpoints.snapshot import Snapshot


@dataclass(frozen=True)
class _Task:
    state: State
    request: int
    snapshot: Snapshot | None
    """None when the checkpoint of the step is there or on its way: it is only announced."""
    needed: bool = False
    """The job cannot end without it."""


class CheckpointWriter:
    """The thread and its queue. Used by the loop's thread alone."""

    def __init__(
        self, directory: Path, journal: Journal, keep: int, chooses: Metric, resumed: Checkpoint | None
    ) -> None:
        """`chooses` is the metric by whose validation the best checkpoint is chosen."""
        self._chooses = chooses
        self._key = f"val/{chooses.key}"
        self._directory = directory
        self._journal = journal
        self._keep = keep
        self._best = _best_that_is_there(directory, resumed.state, self._key) if resumed else None
        self._durable: dict[int, Checkpoint] = {resumed.state.step: resumed} if resumed else {}
        self._submitted = set(self._durable)
        self._failure: OSError | None = None
        self._unexpected: BaseException | None = None
        self._tasks: queue.Queue[Callable[[], None] | None] = queue.Queue(maxsize=1)
        if resumed:
            self._tasks.put(self._tidy)  # what an attempt that was killed had only announced
        self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
        self._thread.start()

    def has(self, step: int) -> bool:
        """Whether the checkpoint of a step is there or on its way: it need not be copied again."""
        return step in self._submitted

    def write(self, state: State, request: int, snapshot: Snapshot, *, needed: bool = False) -> None:
        """Have a checkpoint written, and said to serve the requests up to a number.

        For one that is needed more may go from a full disk, and whoever waits for it says why it is not there.
        """
        self._raise_unexpected()
        self._submitted.add(state.step)
        self._tasks.put(partial(self._perform_or_say, _Task(state, request, snapshot, needed)))

    def announce(self, state: State, request: int) -> None:
        """Have a checkpoint that is there, or on its way, announced again: for a request, or with its validation."""
        self._tasks.put(partial(self._perform_or_say, _Task(state, request, None)))

    def wait_for(self, step: int) -> None:
        """Return when the checkpoint of a step is durable and announced.

        Raises:
            M1Error: DISK_FULL or NOT_ALLOWED, when it could not be written.
        """
        self._tasks.join()
        self._raise_unexpected()
        if step in self._durable:
            return
        full = out_of_space(self._failure)
        raise M1Error(
            Reason.DISK_FULL if full else Reason.NOT_ALLOWED,
            f"the checkpoint of step {step} could not be written ({self._failure})",
            "free some space and retry the job: it goes on from its newest checkpoint",
        )

    def close(self) -> None:
        """Finish what is queued, and end the thread."""
        self._tasks.put(None)
        self._thread.join()
        self._raise_unexpected()

    def _raise_unexpected(self) -> None:
        if self._unexpected is not None:
            raise self._unexpected

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except BaseException as error:  # noqa: BLE001 - handed to the loop's thread, which raises it
                self._unexpected = error
            finally:
                del task  # and the copies with it, before the next one comes
                self._tasks.task_done()
        self._tasks.task_done()

    def _perform_or_say(self, task: _Task) -> None:
        step = task.state.step
        try:
            self._perform(task)
        except OSError as error:
            self._failure = error
            self._submitted.discard(step)
            if task.needed and out_of_space(error):
                return
            consequence = "the training goes on without it"
            message = f"the checkpoint of step {step} could not be written ({error}): {consequence}"
            self._journal.append(Notice("error", message))

    def _perform(self, task: _Task) -> None:
        state = replace(task.state, best=self._better(task.state.step, task.state.validation))
        if task.snapshot is not None:
            self._durable[state.step] = self._written(state, task.snapshot, needed=task.needed)
        elif state.step in self._durable:
            self._durable[state.step] = replace(self._durable[state.step], state=state)
        else:
            return  # its writing failed, and was reported
        self._best = state.best
        self._journal.append(announcement(self._durable[state.step], task.request))
        self._tidy()

    def _written(self, state: State, snapshot: Snapshot, *, needed: bool) -> Checkpoint:
        tensors = snapshot.tensors()
        while True:
            try:
                return checkpoint.write(self._directory, state, *tensors)
            except OSError as error:
                best = state.best.step if state.best else None
                there = checkpoint_steps(self._directory)
                spare = checkpoint.spare(there, state.step, self._keep, best, needed=needed)
                if not (out_of_space(error) and spare):
                    raise
            self._remove(spare[0])

    def _better(self, step: int, validation: Mapping[str, float]) -> Best | None:
        value = validation.get(self._key)
        if value is not None and (self._best is None or self._chooses.improves(value, self._best.value)):
            return Best(step, value)
        return self._best

    def _tidy(self) -> None:
        try:
            self._remove_the_others()
        except OSError as error:
            self._journal.append(Notice("warning", f"an old checkpoint could not be removed ({error})"))

    def _remove_the_others(self) -> None:
        there = checkpoint_steps(self._directory)
        for step in sorted(set(there) - checkpoint.kept(there, self._keep, self._best.step if self._best else None)):
            # First said, then done: a kill in between leaves one too many, which the next removal finds.
            if not self._journal.appended(CheckpointRemoved(step)):
                return
            self._forget(step)

    def _remove(self, step: int) -> None:
        """Remove a checkpoint for the room that it takes, also where the disk is too full for saying so first."""
        said = self._journal.appended(CheckpointRemoved(step))
        self._forget(step)
        if not said:
            self._journal.append(CheckpointRemoved(step))

    def _forget(self, step: int) -> None:
        reach("before.removal")
        checkpoint.remove(self._directory, step)
        self._durable.pop(step, None)
        self._submitted.discard(step)


def _best_that_is_there(directory: Path, state: State, key: str) -> Best | None:
    """The best checkpoint so far; another home's, or one that its owner deleted, is none that could be kept."""
    if state.best is None or state.best.step in checkpoint_steps(directory):
        return state.best
    return Best(state.step, state.validation[key]) if key in state.validation else None


def announcement(written: Checkpoint, request: int) -> CheckpointWritten:
    """The journal's record of a checkpoint that serves the requests up to a number."""
    state = written.state
    return CheckpointWritten(
        step=state.step,
        epoch=state.epoch,
        size_bytes=written.size_bytes,
        weights_sha256=written.weights_sha256,
        metrics=dict(state.validation),
        best=state.best is not None and state.best.step == state.step,
        request=request,
        time=state.time,
        approximate=bool(state.approximate),
    )
