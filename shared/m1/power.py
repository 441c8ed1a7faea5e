"""Where the computer's power comes from: by psutil, which a client need not have, and which is handed in therefore."""

from __future__ import annotations

from types import ModuleType


def battery(psutil: ModuleType) -> tuple[bool | None, float | None]:
    """Whether the computer runs on its battery, and how full that is, from 0 to 1; None where it cannot tell."""
    # Not on every platform that psutil is on, and None on a computer without one.
    read = getattr(psutil, "sensors_battery", None)
    found = read() if read else None
    if found is None:
        return None, None
    plugged = found.power_plugged
    return (None if plugged is None else not plugged), found.percent / 100


def power_source(psutil: ModuleType) -> str:
    """Where the power comes from: "mains", "battery" or "unknown"."""
    on_battery, _ = battery(psutil)
    return "unknown" if on_battery is None else "battery" if on_battery else "mains"
