"""Starting a process by this interpreter, and what the machine says when it can't: a sentence with the way out.

A Python that a package manager has just replaced, a limit on processes, a system without descriptors: none of it is the
fault of a job. Whoever meets it says so once and tries again; see m1d.running.fault.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from m1.errors import M1Error, Reason, shortened

# What an OSError tells of the machine, wherever it comes up; a job's own directory may have other troubles.
OF_THE_MACHINE = frozenset(
    {
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN),
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE),
    }
)
_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}
_PROCESSES = {errno.ENOMEM, errno.EAGAIN}
_INTERPRETER = {errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.ELOOP, errno.EPERM}
# By the shell's and the dynamic loader's convention, and Python's own status when it cannot import something.
NOT_RUN = {1, 126, 127}


def spawn(command: Sequence[str], environment: Mapping[str, str], file_actions: Sequence[Any]) -> int:
    """Start this interpreter with a command in a session of its own; the pid.

    Raises:
        M1Error: PROCESS_NOT_STARTED.
    """
    try:
        return os.posix_spawn(
            sys.executable, list(command), dict(environment), file_actions=list(file_actions), setsid=True
        )
    except OSError as error:
        raise refusal(error) from error


def refusal(error: OSError) -> M1Error:
    """Make the error for what the system said when a process was to be started."""
    said = error.strerror or str(error)
    if error.errno in _INTERPRETER:
        message = f'the Python that m1d runs on, "{sys.executable}", cannot be started ({said})'
        return _not_started(message, "put it back, or install m1d again and restart the daemon")
    if error.errno in _DESCRIPTORS:
        return _not_started(f"no file can be opened for another process ({said})", "raise the limit (ulimit -n)")
    if error.errno in _PROCESSES:
        message = f"the system refuses another process ({said})"
        return _not_started(message, "end something large, or raise the limit (ulimit -u)")
    return _not_started(f"another process cannot be started ({error})", "see to the disk of the home")


def broken_installation(status: int, errors: str) -> M1Error | None:
    """Read from how a tool ended that the installation is not whole; None if it tells nothing of the kind."""
    last = errors.rpartition("\n")[2]
    not_whole = ("No module named", "a library is missing", "ImportError", "ModuleNotFoundError", "Fatal Python error")
    if status in {126, 127} or (status in NOT_RUN and any(words in last for words in not_whole)):
        message = f"what m1d is installed with is not whole ({shortened(last or f'exit status {status}', 200)})"
        return _not_started(message, "install it again: pip install 'm1d[daemon]'")
    return None


async def why_not(command: Sequence[str], environment: Mapping[str, str], limit_s: float = 60.0) -> M1Error | None:
    """Try whether a process of this interpreter can run a command at all; the fault, or None.

    A machine on which that takes longer than the limit is busy, and not at fault.
    """
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    ]
    try:
        read_end, write_end = os.pipe()
    except OSError as error:
        return refusal(error)
    try:
        with os.fdopen(write_end, "wb"):
            pid = spawn(command, environment, [*actions, (os.POSIX_SPAWN_DUP2, write_end, 2)])
    except M1Error as error:
        os.close(read_end)
        return error
    ended = asyncio.ensure_future(asyncio.to_thread(_last_words, pid, read_end))
    try:
        async with asyncio.timeout(limit_s):
            status, said = await asyncio.shield(ended)
    except TimeoutError:
        return None
    finally:
        if not ended.done():
            os.kill(pid, 9)  # not reaped yet: the pid is still its own
            await asyncio.shield(ended)
    if status == 0:
        return None
    last = shortened(said.rpartition("\n")[2], 200)
    message = f"a process of the training ended at once (exit status {status}: {last})"
    return broken_installation(status, said) or _not_started(message, "install m1d again: pip install 'm1d[daemon]'")


def _last_words(pid: int, errors: int) -> tuple[int, str]:
    with os.fdopen(errors, "rb") as file:
        said = file.read().decode(errors="replace").strip()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


def _not_started(message: str, hint: str) -> M1Error:
    return M1Error(Reason.PROCESS_NOT_STARTED, message, hint)
