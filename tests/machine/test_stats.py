"""Samples of this machine, of a real process and of a Mac's notification centre."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from m1d.machine.stats import StatsSampler, busy_fraction, thermal_level_reader, thermal_name


@pytest.fixture
def busy_process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that keeps one core busy."""
    process = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
    yield process
    process.kill()
    process.wait()


def use_some_cpu(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(1000))


def test_the_first_sample_has_the_present_and_no_mean(tmp_path: Path) -> None:
    stats = StatsSampler(tmp_path, clock=lambda: 1234.5).sample()

    assert stats.time == 1234.5
    assert stats.cpu_fraction is None
    assert stats.core_fractions == ()
    assert stats.training is None
    assert 0 < (stats.memory_available_bytes or 0) <= (stats.memory_total_bytes or 0)
    assert (stats.disk_free_bytes or 0) > 0
    assert stats.load_1min is not None


def test_the_second_sample_has_the_mean_since_the_first(tmp_path: Path) -> None:
    sampler = StatsSampler(tmp_path)
    sampler.sample()
    use_some_cpu(0.3)

    stats = sampler.sample()

    assert len(stats.core_fractions) == psutil.cpu_count()
    assert stats.cpu_fraction is not None
    assert 0 < stats.cpu_fraction <= 1
    assert max(stats.core_fractions) > 0.2


def test_two_samplers_do_not_disturb_each_other(tmp_path: Path) -> None:
    one, other = StatsSampler(tmp_path), StatsSampler(tmp_path)
    one.sample()
    use_some_cpu(0.1)

    assert other.sample().cpu_fraction is None
    assert one.sample().cpu_fraction is not None


def test_a_training_process_is_measured_in_cores(tmp_path: Path, busy_process: subprocess.Popen[bytes]) -> None:
    sampler = StatsSampler(tmp_path)
    first = sampler.sample(("7", busy_process.pid)).training
    use_some_cpu(0.5)
    second = sampler.sample(("7", busy_process.pid)).training

    assert first is not None
    assert first.cpu_cores is None
    assert second is not None
    assert (second.job_id, second.pid) == ("7", busy_process.pid)
    assert second.cpu_cores is not None
    assert 0.1 < second.cpu_cores < 1.2
    assert second.memory_bytes > 1_000_000
    assert second.threads == 1


def test_what_a_process_has_started_counts_too(tmp_path: Path) -> None:
    spins = "while True: pass"
    starts = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {spins!r}])"
    with subprocess.Popen([sys.executable, "-S", "-c", starts]) as parent:
        try:
            while not (children := psutil.Process(parent.pid).children()):
                use_some_cpu(0.01)
            sampler = StatsSampler(tmp_path)
            sampler.sample(("7", parent.pid))
            while sum(children[0].cpu_times()[:2]) < 0.3:
                use_some_cpu(0.01)
            training = sampler.sample(("7", parent.pid)).training
        finally:
            for process in [*children, psutil.Process(parent.pid)]:
                process.kill()
    assert training is not None
    assert training.cpu_cores is not None
    assert training.cpu_cores > 0.05
    assert training.memory_bytes > 4_000_000, "a Python takes half of that at least"
    assert training.threads == 2


def test_another_process_starts_without_a_mean(tmp_path: Path, busy_process: subprocess.Popen[bytes]) -> None:
    sampler = StatsSampler(tmp_path)
    sampler.sample(("7", os.getpid()))

    training = sampler.sample(("8", busy_process.pid)).training

    assert training is not None
    assert training.cpu_cores is None


def test_a_process_that_is_gone_is_absent(tmp_path: Path, busy_process: subprocess.Popen[bytes]) -> None:
    sampler = StatsSampler(tmp_path)
    assert sampler.sample(("7", busy_process.pid)).training is not None
    busy_process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, busy_process.pid, os.WEXITED | os.WNOWAIT)

    assert sampler.sample(("7", busy_process.pid)).training is None  # dead, its parent has not looked yet
    busy_process.wait()
    assert sampler.sample(("7", busy_process.pid)).training is None


@pytest.mark.parametrize(
    ("level", "name"),
    [(0, "nominal"), (1, "moderate"), (2, "heavy"), (3, "trapping"), (4, "sleeping"), (5, None), (-1, None)],
)
def test_a_thermal_level_has_a_name(level: int, name: str | None, tmp_path: Path) -> None:
    assert thermal_name(level) == name
    assert StatsSampler(tmp_path, read_thermal_level=lambda: level).sample().thermal_pressure == name


class NotificationCentre:
    """What libSystem's notify(3) does with its arguments."""

    def __init__(self, status: int, state: int) -> None:
        self.status = status
        self.state = state
        self.names: list[bytes] = []

    def notify_register_check(self, name: bytes, token: Any) -> int:
        self.names.append(name)
        ctypes.cast(token, ctypes.POINTER(ctypes.c_int))[0] = 42
        return self.status

    def notify_get_state(self, token: ctypes.c_int, state: Any) -> int:
        assert token.value == 42
        ctypes.cast(state, ctypes.POINTER(ctypes.c_uint64))[0] = self.state
        return 0


def test_a_mac_tells_its_thermal_pressure_without_a_process() -> None:
    centre = NotificationCentre(status=0, state=2)
    read = thermal_level_reader("darwin", centre)

    assert (read(), centre.names) == (2, [b"com.apple.system.thermalpressurelevel"])
    centre.state = 0
    assert read() == 0


def test_where_there_is_no_thermal_pressure_it_is_absent() -> None:
    assert thermal_level_reader("darwin", NotificationCentre(status=1, state=2))() is None
    assert thermal_level_reader("linux")() is None


def test_a_fraction_stays_between_none_and_all() -> None:
    assert busy_fraction((1.0, 10.0), (2.0, 14.0)) == 0.25
    assert busy_fraction((1.0, 10.0), (1.0, 10.0)) == 0
    assert busy_fraction((5.0, 10.0), (4.0, 12.0)) == 0  # the kernel's counters can step back
