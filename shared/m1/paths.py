"""Where things are: one home for everything that is stored, and the names inside it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from m1.errors import M1Error, Reason, sendable

# sockaddr_un.sun_path holds 104 bytes on macOS and 108 on Linux, the closing NUL included; the smaller one for both,
# so that a home can move.
SOCKET_PATH_LIMIT_BYTES = 103


@dataclass(frozen=True)
class Home:
    """The one directory of a daemon. Paths only: making and checking it is the daemon's business."""

    root: Path

    @property
    def lock(self) -> Path:
        """Held by the living daemon."""
        return self.root / "lock"

    @property
    def socket(self) -> Path:
        """The daemon's Unix socket."""
        return self.root / "m1d.sock"

    @property
    def database(self) -> Path:
        """Jobs, events and metrics."""
        return self.root / "m1d.sqlite"

    @property
    def jobs(self) -> Path:
        """One directory a job, by id."""
        return self.root / "jobs"

    @property
    def data(self) -> Path:
        """The cache of datasets."""
        return self.root / "data"

    @property
    def cache(self) -> Path:
        """What can be made again."""
        return self.root / "cache"

    @property
    def profiles(self) -> Path:
        """What tunings found, by recipe."""
        return self.root / "profiles"

    @property
    def config(self) -> Path:
        """The daemon's own settings; may be absent."""
        return self.root / "config.toml"

    @property
    def log(self) -> Path:
        """The daemon's log."""
        return self.root / "m1d.log"

    def job(self, job_id: str) -> Path:
        """The directory of a job."""
        return self.jobs / job_id


def home_from_environment(override: str | None = None) -> Home:
    """The home: the override, else $M1D_HOME, else ~/.m1d; absolute."""
    chosen = override or os.environ.get("M1D_HOME") or "~/.m1d"
    return Home(Path(os.path.abspath(os.path.expanduser(chosen))))


def check_socket_path(home: Home) -> None:
    """Refuse a home whose socket the system could not bind, or whose name no answer could carry.

    Raises:
        M1Error: SOCKET_PATH_TOO_LONG, or INVALID_ARGUMENT for a name that is not UTF-8.
    """
    shown = sendable(str(home.root))
    if shown != str(home.root):
        raise M1Error(
            Reason.INVALID_ARGUMENT,
            f'the home "{shown}" has a name that is not UTF-8',
            "choose another with --home or M1D_HOME",
            field="home",
            value=shown,
        )
    length = len(os.fsencode(home.socket))
    if length > SOCKET_PATH_LIMIT_BYTES:
        raise M1Error(
            Reason.SOCKET_PATH_TOO_LONG,
            f'the socket path "{home.socket}" has {length} bytes and the system allows {SOCKET_PATH_LIMIT_BYTES}',
            "choose a shorter home with --home or M1D_HOME",
            field="home",
            value=str(home.root),
        )
