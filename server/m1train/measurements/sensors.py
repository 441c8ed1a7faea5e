"""Heat, power and memory as the system tells them, each with its kind: a sensor, or a counter. Absent is None, and why.

Read from sysfs and procfs, where Linux has them. macOS tells an unprivileged process neither degrees nor watts without
a library of its own; its thermal pressure is among the daemon's system stats.
"""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

# What the drivers of processors' own sensors are called under /sys/class/hwmon.
_DRIVERS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "soc_thermal", "scpi_sensors")
_PACKAGE_DOMAIN = "class/powercap/intel-rapl:0"
_SYS, _PROC = Path("/sys"), Path("/proc")


@dataclass(frozen=True)
class Reading:
    """A value, and what it was read from; without one, why."""

    value: float | None
    source: str


def temperature_c(root: Path = _SYS) -> Reading:
    """The hottest sensor of the processor, in degrees Celsius."""
    for driver in sorted(root.glob("class/hwmon/hwmon*")):
        name = _text(driver / "name")
        if name in _DRIVERS:
            degrees = [int(text) / 1000 for file in driver.glob("temp*_input") if (text := _text(file)).isdecimal()]
            if degrees:
                return Reading(max(degrees), f"sensor: {name}")
    for zone in sorted(root.glob("class/thermal/thermal_zone*")):
        kind = _text(zone / "type")
        if ("cpu" in kind.lower() or "x86_pkg" in kind) and (text := _text(zone / "temp")).isdecimal():
            return Reading(int(text) / 1000, f"sensor: {kind}")
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
