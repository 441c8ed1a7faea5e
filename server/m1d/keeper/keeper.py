"""The keeper's loop: what the program prints, what the daemon wants, how the program ends.

    hold    the whole family is stopped (SIGSTOP), and goes on with `run`
    yield   is the program's to do, which looks at the desired state itself; the daemon asks only one that has joined
    stop    SIGTERM to the whole family, SIGKILL after TERM_GRACE_S

SIGTERM to the keeper (the machine goes down) is passed on. When the program has ended, whatever it has left running is
killed, and said.
"""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import sys
import time
from pathlib import Path

from m1.errors import Reason, last_line, shortened
from m1.job_log import Bounding
from m1.jobdir import Spec, Want, checkpoint_steps, log_path
from m1.journal import (
    Continued,
    Exited,
    Held,
    JournalDamagedError,
    Leaving,
    Notice,
    Plan,
    Started,
    journal_path,
    read_journal,
)
from m1.process.control import Control
from m1.process.journal import Journal
from m1.spec import Program

from m1d.keeper.environment import program_environment
from m1d.keeper.family import Family
from m1d.keeper.output import Output
from m1d.processes.leftovers import MARK

# How soon a wish is seen; what is printed and the program's end wake the keeper at once.
LOOK_S = 0.1
# The supervisor kills a keeper that takes longer than its own grace.
TERM_GRACE_S = 10.0
_MOST_NAMED = 5


class Keeper:
    """Looks after one attempt of a program."""

    def __init__(self, directory: Path, spec: Spec, attempt: int, journal: Journal, control: Control) -> None:
        self._directory = directory
        self._spec = spec
        self._attempt = attempt
        self._journal = journal
        self._control = control
        self._held = False
        self._terminated = False
        self._kill_at: float | None = None

    def run(self) -> Exited:
        """Start the program, look after it until it ends, and journal how."""
        step = max(checkpoint_steps(self._directory), default=0)
        self._journal.append(Started(os.getpid(), step or None))
        with Bounding(log_path(self._directory)):
            exited = self._attempt_at(self._program, step)
        self._journal.leave(exited, self._control.stay)
        return exited

    @property
    def _program(self) -> Program:
        if self._spec.program is None:
            raise ValueError(f"{self._spec.job_id} runs no program")
        return self._spec.program

    def _attempt_at(self, program: Program, step: int) -> Exited:
        output = Output(sys.stderr.fileno())
        waker, wake = os.pipe()
        for fd in (waker, wake):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: self._control.terminate())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        environment = program_environment(os.environ, program, self._directory, self._attempt)
        try:
            family = Family(
                program.command, program.directory, environment, output.program_end, os.environ.get(MARK, "")
            )
        except (OSError, ValueError) as error:
            return _not_started(program, error)
        finally:
            os.close(output.program_end)
        self._journal.append(Plan(step=step, epoch=0, total_steps=0, total_epochs=0))
        with selectors.DefaultSelector() as selector:
            selector.register(waker, selectors.EVENT_READ)
            selector.register(output.fd, selectors.EVENT_READ)
            code = self._look_after(family, output, selector, waker)
        left = family.end()
        output.take_all()
        if left:
            self._journal.append(Notice("warning", _left_words(left)))
        return self._judged(program, code)

    def _look_after(self, family: Family, output: Output, selector: selectors.BaseSelector, waker: int) -> int:
        """Return the program's exit code."""
        printing = True
        while (code := family.ended()) is None:
            for key, _ in selector.select(LOOK_S):
                if key.fd == waker:
                    os.read(waker, 4096)
                elif printing and not output.take():
                    # Nobody is left to print; its end of the pipe would wake us for ever.
                    selector.unregister(output.fd)
                    printing = False
            self._journal.settle()
            self._obey(family)
        return code

    def _obey(self, family: Family) -> None:
        want = self._control.look().want
        if want is Want.HOLD and not self._held:
            family.hold()
            self._journal.append(Held(0))
            self._held = True
        elif want is not Want.HOLD and self._held:
            family.go_on()
            self._journal.append(Continued(0))
            self._held = False
        if self._control.terminated and not self._terminated:
            family.terminate()
            self._terminated = True
        if want is Want.STOP:
            now = time.monotonic()
            if self._kill_at is None:
                family.terminate()
                self._kill_at = now + TERM_GRACE_S
            elif now >= self._kill_at:
                family.end()

    def _judged(self, program: Program, code: int) -> Exited:
        """Say what an exit code means."""
        if self._kill_at is not None:
            return Exited("stopped")
        left_at = self._left_at()
        if code == 0 and left_at is not None:
            return Exited("yielded", step=left_at)
        if code == 0:
            return Exited("succeeded", message="exit status 0")
        if self._terminated:
            return Exited("yielded")
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
        hint = f"m1ctl logs {self._spec.job_id} shows what it printed"
        return Exited("failed", Reason.PROGRAM_FAILED.value, f"`{_shown(program)}` {how}", hint)

    def _left_at(self) -> int | None:
        """The step after which the program left its loop because the machine was wanted; None: it did not."""
        offset, left_at = 0, None
        path = journal_path(self._directory, self._attempt)
        try:
            while entries := list(read_journal(path, offset)):
                for entry in entries:
                    if isinstance(entry.record, Leaving):
                        left_at = entry.record.step
                offset = entries[-1].next_offset
        except JournalDamagedError as damage:
            self._journal.append(Notice("error", str(damage)))
        return left_at


def _shown(program: Program) -> str:
    return shortened(shlex.join(program.command), 80)


def _not_started(program: Program, error: OSError | ValueError) -> Exited:
    problem = f"`{_shown(program)}` could not be started in {program.directory}: {last_line(error)}"
    return Exited("failed", Reason.PROGRAM_NOT_FOUND.value, problem, "give the program by its absolute path")


def _left_words(left: list[str]) -> str:
    named = ", ".join(left[:_MOST_NAMED]) + (f" and {len(left) - _MOST_NAMED} more" if len(left) > _MOST_NAMED else "")
    what = "1 process" if len(left) == 1 else f"{len(left)} processes"
    return f"the program left {what} running, which {'was' if len(left) == 1 else 'were'} killed: {named}"
