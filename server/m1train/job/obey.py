"""What the training process does when the daemon wants something: written once, for all that it can be doing.

stop    leave
yield   what `serve` does for it (a training has a checkpoint written and waits until it is durable), then leave
hold    say so, wait, say when it goes on; `serve` is called meanwhile, so that requests are served
run     go on
"""

from __future__ import annotations

from collections.abc import Callable

from m1.jobdir import Desired, Want
from m1.journal import Continued, Held
from m1.process.control import Control, StopRequested
from m1.process.journal import Journal


def obey(
    control: Control, journal: Journal, step: int, serve: Callable[[Desired], None] = lambda _desired: None
) -> bool:
    """Do what the daemon wants, and return True if that took time; `step` is how many steps are done.

    Raises:
        StopRequested: it wants this process to go.
    """
    held = False
    while True:
        journal.settle()
        desired = control.look()
        if desired.want is Want.STOP:
            raise StopRequested("stopped")
        serve(desired)
        if desired.want is Want.YIELD:
            raise StopRequested("yielded")
        if desired.want is Want.RUN:
            if held:
                journal.append(Continued(step))
            return held
        if not held:
            journal.append(Held(step))
            held = True
        control.rest()


def check_stop(control: Control) -> Want:
    """Look what the daemon wants where there is nothing to save yet, and return it: to run, or to hold.

    Raises:
        StopRequested: it wants this process to go.
    """
    want = control.look().want
    if want in (Want.STOP, Want.YIELD):
        raise StopRequested("stopped" if want is Want.STOP else "yielded")
    return want
