"""Live figures of the machine and of the training process, as they are now.

A sample blocks on nothing and starts no process. What this machine cannot tell is None, never 0. CPU figures are
means since the sample before, so the first sample has none.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m1.cgroup import memory_limit
from m1.power import battery
from m1.readings import optional

if TYPE_CHECKING:
    import psutil

# OSThermalPressureLevel on macOS, from <libkern/OSThermalNotification.h>.
THERMAL_PRESSURE = ("nominal", "moderate", "heavy", "trapping", "sleeping")
_THERMAL_KEY = b"com.apple.system.thermalpressurelevel"


@dataclass(frozen=True)
class TrainingStats:
    """The job's process and all that it has started."""

    job_id: str
    pid: int
    cpu_cores: float | None
    """1.5 is one and a half cores busy."""
    memory_bytes: int
    """Resident; what processes share is counted in each."""
    threads: int


@dataclass(frozen=True)
class Stats:
    """One sample; the fields are those of m1.v1.SystemStats."""

    time: float
    """Seconds since the epoch."""
    cpu_fraction: float | None
    """Of all logical cores together, from 0 to 1."""
    core_fractions: tuple[float, ...]
    memory_total_bytes: int | None
    """The machine's, or what a control group allows of it."""
    memory_available_bytes: int | None
    swap_used_bytes: int | None
    load_1min: float | None
    disk_free_bytes: int | None
    """For the daemon's user, on the disk of the home."""
    thermal_pressure: str | None
    """One of THERMAL_PRESSURE; macOS only."""
    on_battery: bool | None
    battery_fraction: float | None
    training: TrainingStats | None


class StatsSampler:
    """Takes samples. One a purpose: two that share one would shorten each other's interval."""

    def __init__(
        self,
        disk_path: Path,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        read_thermal_level: Callable[[], int | None] | None = None,
        root: Path = Path("/"),
    ) -> None:
        """Nothing is read yet.

        Args:
            disk_path: a path on the disk whose free space counts.
            clock: seconds since the epoch, for the sample's time.
            monotonic: seconds that never jump, for what is a mean over an interval.
            read_thermal_level: tells the system's thermal pressure level; by default the system is asked.
            root: the root of the file system, for what the control groups allow.
        """
        self._disk_path = disk_path
        self._clock = clock
        self._monotonic = monotonic
        self._read_thermal_level = read_thermal_level or thermal_level_reader(sys.platform)
        self._root = root
        self._core_times: list[tuple[float, float]] = []
        self._process: psutil.Process | None = None
        self._used_before: tuple[dict[psutil.Process, float], float] | None = None

    def sample(self, training: tuple[str, int] | None = None) -> Stats:
        """The figures now.

        Args:
            training: the job's id and the pid of its process; one that is gone is left out.
        """
        import psutil

        now = self._clock()
        cores = optional(self._core_fractions) or ()
        total, available = self._memory()
        on_battery, battery_fraction = battery(psutil)
        return Stats(
            time=now,
            cpu_fraction=sum(cores) / len(cores) if cores else None,
            core_fractions=cores,
            memory_total_bytes=total,
            memory_available_bytes=available,
            swap_used_bytes=optional(lambda: int(psutil.swap_memory().used)),
            load_1min=optional(lambda: os.getloadavg()[0]),
            disk_free_bytes=optional(lambda: int(psutil.disk_usage(str(self._disk_path)).free)),
            thermal_pressure=thermal_name(optional(self._read_thermal_level)),
            on_battery=on_battery,
            battery_fraction=battery_fraction,
            training=optional(lambda: self._training(*training)) if training else None,
        )

    def _memory(self) -> tuple[int | None, int | None]:
        """In all and available: the machine's, or less where a control group is tighter."""
        import psutil

        machine, group = optional(psutil.virtual_memory), memory_limit(self._root)
        total = [size for size in (machine and int(machine.total), group.limit) if size is not None]
        available = [size for size in (machine and int(machine.available), group.available) if size is not None]
        return min(total, default=None), min(available, default=None)

    def _core_fractions(self) -> tuple[float, ...]:
        import psutil

        before, self._core_times = self._core_times, [_busy_and_total(times) for times in psutil.cpu_times(percpu=True)]
        if len(before) != len(self._core_times):  # the first sample, or a core came or went
            return ()
        return tuple(busy_fraction(old, new) for old, new in zip(before, self._core_times, strict=True))

    def _training(self, job_id: str, pid: int) -> TrainingStats | None:
        import psutil

        try:
            if self._process is None or self._process.pid != pid or not self._process.is_running():
                self._process = psutil.Process(pid)
                self._used_before = None
            if self._process.status() == psutil.STATUS_ZOMBIE:
                return None
            family = [self._process, *self._process.children(recursive=True)]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            self._process = self._used_before = None
            return None
        used_s, memory_bytes, threads = dict[psutil.Process, float](), 0, 0
        for process in family:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess), process.oneshot():
                times = process.cpu_times()
                memory_bytes += process.memory_info().rss
                threads += process.num_threads()
                used_s[process] = times.user + times.system
        at_s = self._monotonic()
        before, self._used_before = self._used_before, (used_s, at_s)
        cores = None
        if before is not None and at_s > before[1]:
            # A child that is new has done all of it since; what one has done that has gone is not known.
            done_s = sum(max(0.0, used - before[0].get(process, 0.0)) for process, used in used_s.items())
            cores = done_s / (at_s - before[1])
        return TrainingStats(job_id, pid, cores, memory_bytes, threads)


def busy_fraction(before: tuple[float, float], after: tuple[float, float]) -> float:
    """The share of the time between two readings (busy, total; seconds) that a core was busy, from 0 to 1."""
    total = after[1] - before[1]
    return min(1.0, max(0.0, (after[0] - before[0]) / total)) if total > 0 else 0.0


def thermal_name(level: int | None) -> str | None:
    """The name of a thermal pressure level; None for one that is unknown."""
    return THERMAL_PRESSURE[level] if level is not None and 0 <= level < len(THERMAL_PRESSURE) else None


def thermal_level_reader(platform: str, library: Any = None) -> Callable[[], int | None]:
    """A function that tells the thermal pressure level, by notify(3), without a process; None where there is none.

    Args:
        platform: sys.platform.
        library: macOS's system library; by default it is loaded.
    """
    if platform != "darwin":
        return lambda: None
    system = library or ctypes.CDLL("/usr/lib/libSystem.B.dylib")
    token = ctypes.c_int()
    if system.notify_register_check(_THERMAL_KEY, ctypes.byref(token)) != 0:
        return lambda: None

    def read() -> int | None:
        state = ctypes.c_uint64()
        return int(state.value) if system.notify_get_state(token, ctypes.byref(state)) == 0 else None

    return read


def _busy_and_total(times: Any) -> tuple[float, float]:
    """Seconds busy and in all, of one core. Guest time is in the user's already (proc(5)); waiting is idle."""
    fields = times._asdict()
    total = sum(fields.values()) - fields.get("guest", 0.0) - fields.get("guest_nice", 0.0)
    return total - fields["idle"] - fields.get("iowait", 0.0), total
