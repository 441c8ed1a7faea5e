"""What the daemon tells systemd: ready, alive, stopping (sd_notify(3)).

One datagram a message to the socket that $NOTIFY_SOCKET names; without that variable, as under launchd or in a
terminal, every call does nothing. No library is loaded and no process is started. The environment is passed in.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

READY = "READY=1"
STOPPING = "STOPPING=1"
WATCHDOG = "WATCHDOG=1"


def notify(message: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Tell systemd, if it listens; whether it was told.

    Raises:
        OSError: $NOTIFY_SOCKET names a socket that takes nothing.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):  # Linux's abstract namespace
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(address)
        sender.sendall(message.encode())
    return True


def watchdog_interval_s(environment: Mapping[str, str] = os.environ, pid: int | None = None) -> float | None:
    """How often WATCHDOG is to be said: at half the limit that systemd set for this process; None without one."""
    limit = environment.get("WATCHDOG_USEC", "")
    meant_for = environment.get("WATCHDOG_PID", "")
    if not limit.isdecimal() or int(limit) == 0 or (meant_for and meant_for != str(pid or os.getpid())):
        return None
    return int(limit) / 1e6 / 2
