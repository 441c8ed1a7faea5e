"""A program's side of its job."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from typing import Any

# Metrics: this many at once, and from then on this many a second; of what comes faster the last is kept.
_BURST, _RATE = 1000.0, 20.0
_LAST_STEP = 2**32 - 1


def attach(every_s: float = 300.0, keep: int = 3) -> Run:
    """Take part in the job that this process is; without one all that it gives does nothing.

    Args:
        every_s: A checkpoint is wanted when the last one is this many seconds old.
        keep: The newest checkpoints that stay.
    """
    if keep < 1:
        raise ValueError(f"keep={keep}: at least one checkpoint has to stay")
    directory, attempt = os.environ.get("M1JOB_DIRECTORY"), os.environ.get("M1JOB_ATTEMPT")
    if not directory or not attempt:
        return Run(None, every_s, keep)
    return Run(_Job(directory, int(attempt)), every_s, keep)


class _Job:
    """What leads to the daemon."""

    def __init__(self, directory: str, attempt: int) -> None:
        from pathlib import Path

        from m1job.directory import Desired, Journal

        self.root = Path(directory) / "checkpoints"
        self.journal = Journal(directory, attempt)
        self.desired = Desired(directory)


class Run:
    """One run of the program. Made by `attach`, used by one thread."""

    def __init__(self, job: _Job | None, every_s: float, keep: int) -> None:
        self._job = job
        self._every_s = every_s
        self._keep = keep
        self.step = 0
        """The step that is being done; after `steps` the last one that was."""
        self.resumed_step = 0
        """The step of the checkpoint that `resume` gave; 0: none."""
        self._total: int | None = None
        self._leaving = self._terminated = False
        self._saved_step: int | None = None
        self._saved_at = time.monotonic()
        self._served = 0
        self._failed_step: int | None = None
        self._credit, self._credited_at = _BURST, time.monotonic()
        self._waiting: dict[str, float] = {}
        self._waiting_step = 0
        self._counting = False
        self._pid = os.getpid()
        if job:
            job.desired.look()
            self._served = job.desired.checkpoint

    # Going on

    def resume(self) -> Path | None:
        """Give the newest checkpoint that is what was written; `resumed_step` is its step. None: there is none."""
        if not self._job:
            return None
        from m1job import checkpoints

        root = self._job.root
        for step in reversed(checkpoints.steps(root)):
            path = checkpoints.checkpoint_path(root, step)
            try:
                checkpoints.verify(path)
            except checkpoints.DamagedError as error:
                aside = checkpoints.set_aside(root, step)
                self.notice(f"the checkpoint of step {step} is damaged ({error}): kept as {aside}", "warning")
                continue
            self.resumed_step = self._saved_step = self.step = step
            return path
        return None

    def steps(self, total: int, start: int | None = None) -> Iterator[int]:
        """Count the steps from the one after `start` to `total`; end early when the daemon wants the machine.

        A step is counted from 1, as in "352 steps are done". When the machine is wanted, `wants_checkpoint` is true in
        one more step, and after that the loop ends: `left_early` says so.

        Args:
            total: The number of the last step.
            start: How many are done; by default the step of the checkpoint that `resume` gave.
        """
        if self._leaving:
            return  # a loop before this one has said so
        total, done = _whole("total", total), self.resumed_step if start is None else _whole("start", start)
        self.plan(total, done)
        self._counting = True
        try:
            while done < total and not self._ends_here():
                done += 1
                self.step = done
                yield done
        except GeneratorExit:
            # The program breaks its loop. When the machine is wanted, that is why: else it would count as done.
            self._leaving = self.wants_machine
            raise
        finally:
            self._counting = False
            if os.getpid() == self._pid:  # else a forked child goes, whose copy of the loop this is
                self._end_loop()

    def _end_loop(self) -> None:
        self._flush()
        if self.left_early and self._job:
            if self._saved_step != self.step:
                back = self._saved_step or 0
                told = f"it left at step {self.step} without a checkpoint: it goes on from step {back}"
                self.notice(told, "warning")
            self._job.journal.append("leaving", {"step": self.step})

    def plan(self, total: int, start: int = 0) -> None:
        """Say how many steps there will be, in a loop of one's own that asks `wants_machine` and then `leave`s."""
        self.step, self._total = _whole("start", start), _whole("total", total)
        self._pid = os.getpid()
        if not self._job:
            return
        from m1job import checkpoints

        # Not when it is attached: so may be a process that loads data, while this one saves.
        checkpoints.remove_temporary(self._job.root)
        self._catch_sigterm()
        self._job.journal.append("plan", {"step": self.step, "epoch": 0, "total_steps": self._total, "total_epochs": 0})
        self._job.journal.append("joined", {})

    @property
    def wants_machine(self) -> bool:
        """The daemon wants this program to make a checkpoint and go."""
        if not self._job:
            return False
        self._job.desired.look()
        return self._terminated or self._job.desired.want == "yield"

    @property
    def left_early(self) -> bool:
        """`steps` has ended, or will end after this step, because the machine is wanted."""
        return self._leaving

    def leave(self, step: int) -> None:
        """Say, in a loop of one's own, that it ends after this step because the machine is wanted."""
        self.step, self._leaving = _whole("step", step), True
        self._flush()
        if self._job:
            self._job.journal.append("leaving", {"step": self.step})

    def _ends_here(self) -> bool:
        """Whether the loop ends after the step that has just been done."""
        if self._leaving and self._failed_step != self.step:
            return True
        # One more step, at whose end a checkpoint is wanted; none where that is there already.
        self._leaving = self.wants_machine
        return self._leaving and self._saved_step == self.step

    # What it says

    def log(self, step: int, values: Mapping[str, Any] | None = None, **more: Any) -> None:
        """Record metrics of a step: `log(7, loss=0.3)` is "train/loss", `log(7, {"val/loss": 0.4})` is what it says.

        Numbers, or what has an `item()` (a tensor of one element). At most 1000 at once and 20 a second are kept; of
        what comes faster, the last.

        Raises:
            TypeError, ValueError: a value is no number, or the step is none.
        """
        self._waiting_step = self._at(step)
        if not self._job:
            return
        self._waiting.update(_metrics({**(values or {}), **more}, "train/"))
        now = time.monotonic()
        self._credit = min(_BURST, self._credit + (now - self._credited_at) * _RATE)
        self._credited_at = now
        if self._credit >= 1 or self.step == self._total:
            self._credit -= 1
            self._flush()

    def notice(self, message: str, severity: str = "info") -> None:
        """Say a sentence to whoever watches; severity is "info", "warning" or "error"."""
        if severity not in ("info", "warning", "error"):
            raise ValueError(f"severity={severity!r}: it is info, warning or error")
        if self._job:
            self._job.journal.append("notice", {"severity": severity, "message": _text(str(message))})

    def _at(self, step: int) -> int:
        """Take note of a step that the program names; the loop of `steps` counts by itself, whatever that is."""
        step = _whole("step", step)
        if not self._counting:
            self.step = step
        return step

    def _flush(self) -> None:
        values, self._waiting = self._waiting, {}
        if values and self._job:
            of_step = all(key.startswith("train/") for key in values)
            record = {"step": self._waiting_step, "epoch": 0, "values": values, "of_step": of_step}
            self._job.journal.append("metrics", record, owed=not of_step)

    # Checkpoints

    @property
    def wants_checkpoint(self) -> bool:
        """It is time for `save`: asked for, the machine is wanted, the last one is `every_s` old, or the last step."""
        if not self._job or self._saved_step == self.step:
            return False
        self._job.desired.look()
        return (
            self._job.desired.checkpoint > self._served
            or self._leaving
            or self.wants_machine
            or self.step == self._total
            or time.monotonic() - self._saved_at >= self._every_s
        )

    def save(self, step: int, write: Callable[[Path], Any], metrics: Mapping[str, Any] | None = None) -> Path | None:
        """Make a checkpoint: `write` puts its files into the directory that it is given. Durable on return.

        Returns:
            Its directory; None without a daemon, and when the disk is full, which is said and ends nothing: the
            program is asked again at its next step.

        Raises:
            Whatever `write` raises; ValueError if it wrote nothing, or what is no plain file.
            TypeError, ValueError: a metric is no number, or the step is none.
        """
        step = self._at(step)
        if not self._job:
            return None
        from m1job import checkpoints

        measured = _metrics(metrics or {}, "")
        request, root = self._job.desired.checkpoint, self._job.root
        try:
            try:
                path, size, sha256 = checkpoints.write(root, step, write)
            except Exception as error:
                if not self._full(error) or not self._make_room():
                    raise
                path, size, sha256 = checkpoints.write(root, step, write)
        except Exception as error:
            if not self._full(error):
                raise
            self._failed_step = self.step
            self.notice(f"the checkpoint of step {step} could not be written: the disk is full", "error")
            return None
        self._saved_step, self._saved_at, self._served = step, time.monotonic(), request
        self._flush()
        record = {
            "step": step,
            "epoch": 0,
            "size_bytes": size,
            "weights_sha256": sha256,
            "metrics": measured,
            "best": False,
            "request": request,
            "time": time.time(),
        }
        self._job.journal.append("checkpoint", record)
        self._remove_all_but(self._keep, written=step)
        return path

    def _full(self, error: BaseException) -> bool:
        """Whether the disk is full. torch says it in an error of its own, which names no cause."""
        import shutil

        from m1job.directory import out_of_space

        assert self._job is not None
        return out_of_space(error) or shutil.disk_usage(str(self._job.root)).free < 2**16

    def _make_room(self) -> bool:
        """Remove all checkpoints but the newest; whether there was one to remove."""
        from m1job import checkpoints

        assert self._job is not None
        before = len(checkpoints.steps(self._job.root))
        self._remove_all_but(1)
        return before > 1

    def _remove_all_but(self, keep: int, written: int | None = None) -> None:
        """Remove all but the last steps' and the one that has just been written, whose step may be an earlier one."""
        from m1job import checkpoints

        assert self._job is not None
        for old in checkpoints.steps(self._job.root)[:-keep]:
            if old == written:
                continue
            self._job.journal.append("checkpoint_removed", {"step": old})
            checkpoints.remove(self._job.root, old)

    # SIGTERM

    def _catch_sigterm(self) -> None:
        """Leave at the next step instead of dying, where the program has not decided otherwise itself."""
        import signal
        import threading

        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, number: int, _frame: object) -> None:
        import signal

        assert self._job is not None
        self._job.desired.look()
        if os.getpid() == self._pid and self._job.desired.want != "stop":
            self._terminated = True
            return
        # Cancelled, or a process that this one has forked.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _metrics(values: Mapping[str, Any], group: str) -> dict[str, float]:
    """Metrics as they are sent; those whose name has no group of its own get this one."""
    for key in values:
        if not isinstance(key, str):
            raise TypeError(f"{key!r:.80} is not the name of a metric: a text is")
    return {_text(key if "/" in key else group + key): _number(key, value) for key, value in values.items()}


def _number(key: str, value: Any) -> float:
    try:
        return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(f"{key}={value!r:.80} is not a number") from error


def _whole(name: str, value: Any) -> int:
    """Give a step, or how many there are, as the int that a journal takes."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        number = int(value.__index__())
    except (AttributeError, TypeError) as error:
        raise TypeError(f"{name}={value!r:.80} is not a whole number") from error
    if not 0 <= number <= _LAST_STEP:
        raise ValueError(f"{name}={number}: steps are counted from 0 to {_LAST_STEP}")
    return number


def _text(text: str) -> str:
    """Give a text without what UTF-8 cannot hold, as a file's name may have it."""
    return text.encode("utf-8", "replace").decode("utf-8")
