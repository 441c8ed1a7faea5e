"""The machine's power as odd machines tell it: none at all, a mouse's battery, a UPS, readings that fail."""

from __future__ import annotations

import os
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn, cast

import psutil
import pytest
from m1.power import battery, power_source
from m1.readings import optional
from m1ctl.views.watched import stats_words
from m1d.catalogue.profiles import current_conditions
from m1d.events.translate import stats_to_proto
from m1d.machine.stats import StatsSampler
from m1train.measurements.sensors import temperature_c

Battery = namedtuple("Battery", ["percent", "secsleft", "power_plugged"])


def supply(root: Path, name: str, **facts: str) -> None:
    directory = root / "sys/class/power_supply" / name
    directory.mkdir(parents=True)
    for fact, value in facts.items():
        (directory / fact).write_text(f"{value}\n")


def on_linux(root: Path) -> tuple[bool | None, float | None]:
    return battery(psutil, "linux", root)


def test_a_machine_without_power_supplies_has_no_battery(tmp_path: Path) -> None:
    assert on_linux(tmp_path) == (None, None)
    (tmp_path / "sys/class/power_supply").mkdir(parents=True)
    assert on_linux(tmp_path) == (None, None)


def test_the_battery_of_a_mouse_or_a_ups_is_not_the_machine_s(tmp_path: Path) -> None:
    supply(tmp_path, "hidpp_battery_0", type="Battery", scope="Device", status="Discharging", capacity="15")
    supply(tmp_path, "ups", type="UPS", status="Discharging", capacity="50")
    supply(tmp_path, "BAT9", type="Battery", present="0", status="Unknown")
    assert on_linux(tmp_path) == (None, None)

    supply(tmp_path, "BAT0", type="Battery", scope="System", status="Discharging", capacity="80", present="1")
    assert on_linux(tmp_path) == (True, 0.8)


@pytest.mark.parametrize(
    ("status", "online", "expected"),
    [
        ("Discharging", "0", (True, 0.5)),
        ("Charging", "1", (False, 0.5)),
        ("Full", "1", (False, 0.5)),
        ("Discharging", "1", (False, 0.5)),  # a weak charger: it is plugged in
        ("Unknown", "0", (None, 0.5)),
    ],
)
def test_a_laptop_s_batteries_are_one(
    tmp_path: Path, status: str, online: str, expected: tuple[bool | None, float]
) -> None:
    supply(tmp_path, "AC", type="Mains", online=online)
    supply(tmp_path, "BAT0", type="Battery", status=status, capacity="60")
    supply(tmp_path, "BAT1", type="Battery", status="Unknown", capacity="40")
    assert on_linux(tmp_path) == expected


class Call:
    """A function that takes attributes, as one of ctypes does."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)


class Devices:
    """What IOKit answers to the three calls that it gets."""

    def __init__(self, found: int) -> None:
        self.released: list[int] = []
        self.IOServiceMatching = Call(lambda name: name)
        self.IOServiceGetMatchingService = Call(lambda _port, name: found if name == b"AppleSmartBattery" else 0)
        self.IOObjectRelease = Call(self.released.append)


def test_a_ups_is_not_a_mac_s_battery() -> None:
    ups = cast("ModuleType", SimpleNamespace(sensors_battery=lambda: Battery(100, -1, True)))
    assert battery(ups, "darwin", iokit=Devices(0)) == (None, None)
    laptop = Devices(77)
    assert battery(ups, "darwin", iokit=laptop) == (False, 1.0)
    assert laptop.released == [77]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (None, (None, None)),
        (Battery(80, 3600, False), (True, 0.8)),
        (Battery(100, -2, True), (False, 1.0)),
        (Battery(55, -1, None), (None, 0.55)),
    ],
)
def test_elsewhere_psutil_tells_of_the_battery(found: Battery | None, expected: tuple[object, object]) -> None:
    asked = cast("ModuleType", SimpleNamespace(sensors_battery=lambda: found))
    assert battery(asked, "freebsd14") == expected
    assert battery(cast("ModuleType", SimpleNamespace()), "freebsd14") == (None, None)


def refuse(*_: object, **__: object) -> NoReturn:
    raise FileNotFoundError(2, "No such file or directory")


def test_what_this_machine_cannot_tell_is_unavailable_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("virtual_memory", "swap_memory", "disk_usage", "cpu_times", "sensors_battery", "sensors_temperatures"):
        monkeypatch.setattr(psutil, name, refuse, raising=False)
    monkeypatch.setattr(psutil, "Process", refuse)
    monkeypatch.setattr(os, "getloadavg", refuse)
    sampler = StatsSampler(tmp_path, clock=lambda: 5.0, read_thermal_level=refuse, root=tmp_path)
    stats = sampler.sample(("j1", os.getpid()))
    assert [name for name, value in vars(stats).items() if value not in (None, ())] == ["time"]
    assert "memory unavailable" in stats_words(stats_to_proto(stats))
    assert current_conditions()["power"] in {"unknown", "mains", "battery"}
    assert temperature_c().value is None


def test_a_reading_that_fails_in_whatever_way_is_none() -> None:
    for error in (OSError, ValueError, KeyError, psutil.AccessDenied, NotImplementedError):

        def fail(error: Any = error) -> NoReturn:
            raise error

        assert optional(fail) is None
    assert optional(lambda: 0) == 0


def test_the_source_of_power_is_a_word() -> None:
    assert power_source(psutil) in {"mains", "battery", "unknown"}
