"""The daemon's hold on its home: that it is ours, closed to others, and nobody else's at the same time."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from m1.endpoint import is_listened_to
from m1.errors import M1Error, Reason
from m1.paths import Home, check_socket_path


def open_home(home: Home) -> int:
    """Make or check the home and take its lock. The descriptor that holds it: keep it open.

    What is refused leaves nothing behind.

    Raises:
        M1Error: SOCKET_PATH_TOO_LONG, HOME_NOT_SAFE, SOCKET_IN_USE, or HOME_IN_USE when another daemon lives in it.
    """
    check_socket_path(home)
    if home.root.exists() and not home.root.is_dir():
        raise _refused(home, f'the home "{home.root}" is not a directory')
    missing = [path for path in (home.root, *home.root.parents) if not path.exists()]
    try:
        home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check(home)
        _check_sockets(home)
        with ExitStack() as refused:
            fd = _lock(home)
            refused.callback(os.close, fd)
            _free_socket(home)
            for directory in (home.jobs, home.data, home.cache):
                directory.mkdir(mode=0o700, exist_ok=True)
            refused.pop_all()
    except M1Error:
        _remove(missing)
        raise
    except OSError as error:
        _remove(missing)
        raise _refused(home, f'the home "{home.root}" cannot be used: {error.strerror}') from error
    return fd


def _remove(made: Sequence[Path]) -> None:
    """Remove the directories that were made for a home that is refused, the innermost first."""
    for path in made:
        with suppress(OSError):  # it could not even be made
            path.rmdir()


def _check(home: Home) -> None:
    info = os.stat(home.root)
    if info.st_uid != os.geteuid():
        raise _refused(home, f'the home "{home.root}" belongs to user {info.st_uid}, not to {os.geteuid()}')
    if stat.S_IMODE(info.st_mode) & 0o077:
        if not keeps_modes(home.root):
            message = f'the disk of the home "{home.root}" keeps no modes (FAT or exFAT?), so it is open to others'
            raise _refused(home, message, "choose a home on another disk with --home or M1D_HOME")
        raise _refused(
            home,
            f'the home "{home.root}" is open to others (mode {stat.S_IMODE(info.st_mode):04o})',
            f'close it with chmod 700 "{home.root}"',
        )


def keeps_modes(directory: Path) -> bool:
    """Return True if the disk of a directory can close a directory to others."""
    probe = Path(tempfile.mkdtemp(prefix=".m1d-", dir=directory))  # of mode 0700, where there are modes
    try:
        return not stat.S_IMODE(os.stat(probe).st_mode) & 0o077
    finally:
        probe.rmdir()


def _check_sockets(home: Home) -> None:
    probe = home.root / ".sock"  # no longer than the socket's own name
    probe.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        try:
            trial.bind(os.fspath(probe))
        except OSError as error:
            if error.errno in {errno.EROFS, errno.ENOSPC, errno.EDQUOT}:
                raise
            message = f'the disk of the home "{home.root}" can hold no socket ({error.strerror})'
            raise _refused(home, message, "choose a home on another disk with --home or M1D_HOME") from error
    probe.unlink()


def _free_socket(home: Home) -> None:
    """Remove what a dead daemon has left of its socket; the home's lock is held.

    Raises:
        M1Error: SOCKET_IN_USE, when somebody else listens there: the end of a forwarded socket, say.
    """
    if is_listened_to(home):
        raise M1Error(
            Reason.SOCKET_IN_USE,
            f'something that is not a daemon of this home listens at "{home.socket}"',
            "if the socket is forwarded (ssh -L), end that first, or choose another home with --home or M1D_HOME",
            field="home",
            value=str(home.root),
        )
    home.socket.unlink(missing_ok=True)


def socket_mark(home: Home) -> tuple[int, int] | None:
    """What tells a socket from another one that has taken its name since; None where there is none."""
    try:
        info = os.stat(home.socket, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return info.st_dev, info.st_ino


def _refused(home: Home, problem: str, way_out: str = "choose another with --home or M1D_HOME") -> M1Error:
    return M1Error(Reason.HOME_NOT_SAFE, problem, way_out, field="home", value=str(home.root))


def _lock(home: Home) -> int:
    fd = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise M1Error(
            Reason.HOME_IN_USE,
            f'another daemon (process {holder}) lives in the home "{home.root}"',
            "use it, stop it with m1ctl daemon stop, or choose another home with --home",
            field="home",
            value=str(home.root),
        ) from None
    # For the person who looks; the lock is what counts.
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd
