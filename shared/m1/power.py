"""Where the computer's power comes from. Only the machine's own battery is one: not a mouse's, not a UPS.

Linux is asked by sysfs, where the kernel says whose a battery is (Documentation/ABI/testing/sysfs-class-power). Other
systems are asked by psutil, which a client need not have, and which is handed in therefore.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from m1.readings import optional

_IOKIT = "/System/Library/Frameworks/IOKit.framework/IOKit"
_FACTS = ("type", "scope", "present", "status", "capacity", "online")
_UNKNOWN = None, None


def battery(
    psutil: ModuleType, platform: str = sys.platform, root: Path = Path("/"), iokit: Any = None
) -> tuple[bool | None, float | None]:
    """Tell whether the computer runs on its battery, and how full that is, from 0 to 1; None where it can't be told.

    Args:
        psutil: the module.
        platform: sys.platform.
        root: the root of the file system.
        iokit: macOS's library of devices; by default it is loaded.
    """
    if platform == "linux":
        return optional(lambda: _linux(root / "sys/class/power_supply")) or _UNKNOWN
    if platform == "darwin" and not optional(lambda: _has_own_battery(iokit or ctypes.CDLL(_IOKIT))):
        return _UNKNOWN  # psutil would take a UPS for it
    return optional(lambda: _by_psutil(psutil)) or _UNKNOWN


def power_source(psutil: ModuleType) -> str:
    """Where the power comes from: "mains", "battery" or "unknown"."""
    on_battery, _ = battery(psutil)
    return "unknown" if on_battery is None else "battery" if on_battery else "mains"


def _linux(supplies: Path) -> tuple[bool | None, float | None]:
    known = [_facts(supply) for supply in sorted(supplies.iterdir())]
    batteries = [
        supply
        for supply in known
        if supply.get("type") == "Battery" and supply.get("scope") != "Device" and supply.get("present") != "0"
    ]
    if not batteries:
        return _UNKNOWN
    levels = [int(supply["capacity"]) for supply in batteries if supply.get("capacity", "").isdigit()]
    full = min(100, sum(levels) / len(levels)) / 100 if levels else None
    states = {supply.get("status", "") for supply in batteries}
    plugged = [supply for supply in known if supply.get("type") in {"Mains", "USB"} and supply.get("online") == "1"]
    if "Discharging" in states and not plugged:
        return True, full
    return (False if plugged or states & {"Charging", "Full", "Not charging"} else None), full


def _facts(supply: Path) -> Mapping[str, str]:
    """What the kernel says of a power supply, by the names of its files; what it lacks or won't say is left out."""
    read = {name: optional((supply / name).read_text) for name in _FACTS}
    return {name: text.strip() for name, text in read.items() if text is not None}


def _by_psutil(psutil: ModuleType) -> tuple[bool | None, float | None]:
    # Not on every platform that psutil is on, and None on a computer without one.
    read = getattr(psutil, "sensors_battery", None)
    found = read() if read else None
    if found is None:
        return _UNKNOWN
    plugged = found.power_plugged
    return (None if plugged is None else not plugged), found.percent / 100


def _has_own_battery(iokit: Any) -> bool:
    """Return True if a Mac has a battery inside, which is another device than a UPS."""
    iokit.IOServiceMatching.restype = ctypes.c_void_p
    iokit.IOServiceMatching.argtypes = [ctypes.c_char_p]
    iokit.IOServiceGetMatchingService.restype = ctypes.c_uint32
    iokit.IOServiceGetMatchingService.argtypes = [ctypes.c_uint32, ctypes.c_void_p]
    iokit.IOObjectRelease.argtypes = [ctypes.c_uint32]
    # The call takes the description over; 0 is the default port.
    found = iokit.IOServiceGetMatchingService(0, iokit.IOServiceMatching(b"AppleSmartBattery"))
    if found:
        iokit.IOObjectRelease(found)
    return bool(found)
