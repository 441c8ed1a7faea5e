"""Heat, power and memory as the system tells them, each with its kind: a sensor, or a counter. Absent is None, and why.

From psutil, sysfs and procfs. macOS tells an unprivileged process neither degrees nor watts without
a library of its own; its thermal pressure is among the daemon's system stats.
"""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
from m1.readings import optional

# What Linux calls the drivers and the thermal zones of processors.
_DRIVERS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal", "x86_pkg_temp")
_PACKAGE_DOMAIN = "class/powercap/intel-rapl:0"
_SYS, _PROC = Path("/sys"), Path("/proc")


@dataclass(frozen=True)
class Reading:
    """A value, and what it was read from; without one, why."""

    value: float | None
    source: str


def temperature_c() -> Reading:
    """The hottest sensor of the processor, in degrees Celsius."""
    read = getattr(psutil, "sensors_temperatures", None)  # not on every platform that psutil is on
    found = (optional(read) if read else None) or {}
    for name in _DRIVERS:
        if found.get(name):
            return Reading(max(sensor.current for sensor in found[name]), f"sensor: {name}")
    return Reading(None, "unavailable: this system shows no sensor of the processor")


def energy_j(root: Path = _SYS) -> Reading:
    """What the processor's package has used since some moment, in joules; the counter begins again at 0 at times."""
    file = root / _PACKAGE_DOMAIN / "energy_uj"
    try:
        return Reading(int(file.read_text()) / 1e6, "counter: RAPL, the processor's package only")
    except PermissionError:
        return Reading(None, "unavailable: only root may read the counter of the processor's package")
    except (OSError, ValueError):
        return Reading(None, "unavailable: this system shows no counter of energy")


def peak_memory_mb(root: Path = _PROC) -> float:
    """The most that was resident of this process so far, in MB of 10^6 bytes."""
    # ru_maxrss would count what the parent had resident when it started this process.
    for line in _text(root / "self/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def largest_cache_bytes(root: Path = _SYS) -> int | None:
    """The largest cache of the first processor; None where the system does not tell."""
    sizes = [_text(file) for file in root.glob("devices/system/cpu/cpu0/cache/index*/size")]
    return max((int(size[:-1]) * 1024 for size in sizes if size.endswith("K")), default=None)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
