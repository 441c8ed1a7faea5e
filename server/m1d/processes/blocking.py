"""What may never return: looking at a path that a user gave, away from the event loop.

A dead network mount keeps whoever looks at it for ever, and no signal ends that. So each look has a thread of its own,
which neither the daemon's other work nor its end waits for, and a limit after which the caller is told. A thread that
is kept stays until its disk answers; their number is bounded.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from m1.errors import M1Error, Reason, shortened

P = ParamSpec("P")
T = TypeVar("T")

LIMIT_S = 8.0
"""How long a look at a path may take: less than a call's default deadline."""
MOST_KEPT = 32
_kept: set[threading.Thread] = set()


async def look_at(
    path: str,
    look: Callable[P, T],
    *arguments: P.args,
    **options: P.kwargs,
) -> T:
    """Return what `look` gives, called in a thread of its own; `path` is what an error names.

    Raises:
        M1Error: TIMED_OUT, when it takes longer than LIMIT_S, or too many others have not returned yet.
        Exception: what `look` raises.
    """
    return await _aside(path, LIMIT_S, lambda: look(*arguments, **options))


async def copy_from(path: str, copy: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """As `look_at`, for what may take as long as it is large."""
    return await _aside(path, None, lambda: copy(*arguments, **options))


async def _aside(path: str, limit_s: float | None, call: Callable[[], T]) -> T:
    if len(_kept) >= MOST_KEPT:
        raise _no_answer(path, f"cannot be looked at: {len(_kept)} other paths have not answered yet")
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        _kept.discard(thread)
        if answer.done():  # nobody waits any more
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(value)  # type: ignore[arg-type]  # what the call gave

    def run() -> None:
        value, problem = None, None
        try:
            value = call()
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            problem = error
        try:
            loop.call_soon_threadsafe(settle, value, problem)
        except RuntimeError:  # the loop is closed: the daemon has gone
            return

    thread = threading.Thread(target=run, name="look", daemon=True)
    _kept.add(thread)
    thread.start()
    try:
        async with asyncio.timeout(limit_s):
            return await answer
    except TimeoutError:
        if not answer.cancelled():
            raise  # the call's own
        raise _no_answer(path, f"did not answer within {limit_s:g} s") from None


def _no_answer(path: str, what: str) -> M1Error:
    hint = "see whether its disk or its network mount is there, and try again"
    return M1Error(Reason.TIMED_OUT, f'"{shortened(path)}" {what}', hint, field="path", value=path)
