"""The daemon's hold on its home: that it is ours, closed to others, and nobody else's at the same time."""

from __future__ import annotations

import fcntl
import os
import stat

from m1.errors import M1Error, Reason
from m1.paths import Home, check_socket_path


def open_home(home: Home) -> int:
    """Make or check the home and take its lock. The descriptor that holds it: keep it open.

    Raises:
        M1Error: SOCKET_PATH_TOO_LONG, HOME_NOT_SAFE, or HOME_IN_USE when another daemon lives in it.
    """
    check_socket_path(home)
    if home.root.exists() and not home.root.is_dir():
        raise _refused(home, f'the home "{home.root}" is not a directory')
    try:
        home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check(home)
        for directory in (home.jobs, home.data, home.cache):
            directory.mkdir(mode=0o700, exist_ok=True)
        return _lock(home)
    except OSError as error:
        raise _refused(home, f'the home "{home.root}" cannot be used: {error.strerror}') from error


def _check(home: Home) -> None:
    info = os.stat(home.root)
    if info.st_uid != os.geteuid():
        raise _refused(home, f'the home "{home.root}" belongs to user {info.st_uid}, not to {os.geteuid()}')
    if stat.S_IMODE(info.st_mode) & 0o077:
        raise _refused(
            home,
            f'the home "{home.root}" is open to others (mode {stat.S_IMODE(info.st_mode):04o})',
            f'close it with chmod 700 "{home.root}"',
        )


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
