"""m1d as a service of the system: launchd's agent on macOS, systemd's user service on Linux.

The two templates beside this file are what is installed, with the paths of this machine filled in (`render`). Importing
this package costs nothing; the installers are loaded when they are called.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from m1service.system import System

__all__ = ["install", "uninstall"]


def install(home: Path, system: System | None = None) -> str:
    """Have the system run m1d for a home: now, after a login, a crash, a reboot. A service that is there is replaced.

    Returns:
        A sentence that says what was installed.

    Raises:
        M1Error: UNSUPPORTED where there is no service manager, with what to do instead; INTERNAL or TIMED_OUT if it
            did not do its part. No service is left behind then.
        OSError: the service's file cannot be written.
    """
    from m1service import launchd, systemd
    from m1service.system import this_system

    system = system or this_system()
    return launchd.install(system, home) if system.platform == "darwin" else systemd.install(system, home)


def uninstall(home: Path, system: System | None = None) -> str:
    """Stop the service of a home and remove it; a training that runs goes on.

    Returns:
        A sentence that says what was removed, if anything.

    Raises:
        M1Error: UNSUPPORTED, INTERNAL or TIMED_OUT as for install.
        OSError: the service's file cannot be removed.
    """
    from m1service import launchd, systemd
    from m1service.system import this_system

    system = system or this_system()
    return launchd.uninstall(system, home) if system.platform == "darwin" else systemd.uninstall(system, home)
