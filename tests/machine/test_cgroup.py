"""Limits of control groups, of both versions: recorded trees below a root of the test's own, and a real group."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from m1.cgroup import MemoryLimit, memory_limit, oom_kills, quota_cores, usable_cores
from m1d.machine.stats import StatsSampler
from m1d.machine.topology import linux_topology

MB = 2**20
# A systemd user session on cgroup v2, and the hybrid tree of an older distribution.
V2_MOUNT = "35 25 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
V1_MEMBER = "9:name=systemd:/\n4:memory:/outer/inner\n2:cpu,cpuacct:/outer\n0::/\n"


def write(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def version_2(root: Path) -> Path:
    write(root / "proc/self/mountinfo", V2_MOUNT)
    write(root / "proc/self/cgroup", "0::/user.slice/app.slice")
    return root / "sys/fs/cgroup/user.slice"


def version_1(root: Path) -> Path:
    write(root / "proc/self/mountinfo", V1_MOUNTS)
    write(root / "proc/self/cgroup", V1_MEMBER)
    return root / "sys/fs/cgroup/memory/outer"


def test_the_least_of_all_groups_of_version_2_counts(tmp_path: Path) -> None:
    outer = version_2(tmp_path)
    write(outer / "app.slice/memory.max", "max")
    write(outer / "app.slice/memory.current", 100 * MB)
    write(outer / "memory.max", 512 * MB)
    write(outer / "memory.current", 300 * MB)
    write(outer / "memory.stat", f"anon {200 * MB}\ninactive_file {60 * MB}\nactive_file {40 * MB}")
    assert memory_limit(tmp_path) == MemoryLimit(512 * MB, 312 * MB)

    write(outer / "app.slice/memory.high", 256 * MB)
    assert memory_limit(tmp_path) == MemoryLimit(256 * MB, 156 * MB)


def test_the_least_of_all_groups_of_version_1_counts(tmp_path: Path) -> None:
    outer = version_1(tmp_path)
    write(outer / "inner/memory.limit_in_bytes", 9223372036854771712)
    write(outer / "memory.limit_in_bytes", 1024 * MB)
    write(outer / "memory.usage_in_bytes", 700 * MB)
    write(outer / "memory.stat", f"cache {MB}\ntotal_inactive_file {200 * MB}\ntotal_active_file 0")
    assert memory_limit(tmp_path) == MemoryLimit(1024 * MB, 524 * MB)


def test_in_a_container_the_mount_shows_its_own_part_of_the_tree(tmp_path: Path) -> None:
    own = "/docker/0123abcd"
    mount = f"670 660 0:28 {own} /sys/fs/cgroup/memory ro,nosuid master:15 - cgroup cgroup rw,memory\n"
    write(tmp_path / "proc/self/mountinfo", mount)
    write(tmp_path / "proc/self/cgroup", f"8:memory:{own}")
    write(tmp_path / "sys/fs/cgroup/memory/memory.limit_in_bytes", 2048 * MB)
    assert memory_limit(tmp_path).limit == 2048 * MB

    # With a namespace of its own, version 2 calls its member "/", and the mount is the group.
    write(tmp_path / "proc/self/mountinfo", V2_MOUNT)
    write(tmp_path / "proc/self/cgroup", "0::/")
    write(tmp_path / "sys/fs/cgroup/memory.max", 100 * MB)
    assert memory_limit(tmp_path) == MemoryLimit(100 * MB, 100 * MB)

    # What was moved out of its namespace's root has a member that is not below the mount.
    write(tmp_path / "proc/self/cgroup", "0::/../elsewhere")
    assert memory_limit(tmp_path).limit == 100 * MB


def test_where_nothing_limits_nothing_does(tmp_path: Path) -> None:
    assert memory_limit(tmp_path) == MemoryLimit(None, None)
    assert (quota_cores(tmp_path), oom_kills(tmp_path)) == (None, None)
    write(version_2(tmp_path) / "memory.max", "max")
    write(version_1(tmp_path) / "memory.limit_in_bytes", "no number")
    assert memory_limit(tmp_path) == MemoryLimit(None, None)


def test_a_quota_of_version_1_counts_as_well(tmp_path: Path) -> None:
    version_1(tmp_path)
    cpu = tmp_path / "sys/fs/cgroup/cpu,cpuacct"
    write(cpu / "cpu.cfs_quota_us", -1)
    write(cpu / "cpu.cfs_period_us", 100_000)
    assert quota_cores(tmp_path) is None
    write(cpu / "outer/cpu.cfs_quota_us", 150_000)
    write(cpu / "outer/cpu.cfs_period_us", 100_000)
    assert quota_cores(tmp_path) == 1.5
    assert usable_cores(tmp_path) == 1


def test_a_kill_by_the_machine_or_by_a_group_is_counted(tmp_path: Path) -> None:
    write(tmp_path / "proc/vmstat", "nr_free_pages 5\noom_kill 3")
    assert oom_kills(tmp_path) == 3
    write(version_2(tmp_path) / "app.slice/memory.events", "low 0\nhigh 4\nmax 9\noom 1\noom_kill 1")
    before = oom_kills(tmp_path)
    write(tmp_path / "sys/fs/cgroup/user.slice/app.slice/memory.events", "oom_kill 2")
    assert oom_kills(tmp_path) != before
    write(version_1(tmp_path) / "inner/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 7")
    assert oom_kills(tmp_path) == 3 + 7


def test_the_machine_and_its_stats_have_no_more_memory_than_the_group(tmp_path: Path) -> None:
    write(tmp_path / "proc/meminfo", "MemTotal: 16384000 kB")
    outer = version_2(tmp_path)
    write(outer / "memory.max", 64 * MB)
    write(outer / "memory.current", 14 * MB)
    assert linux_topology(tmp_path, frozenset({0}), "x86_64").memory_bytes == 64 * MB
    stats = StatsSampler(tmp_path, root=tmp_path).sample()
    assert (stats.memory_total_bytes, stats.memory_available_bytes) == (64 * MB, 50 * MB)


@pytest.fixture
def real_group() -> Iterator[Path]:
    """A group of 256 MB of this machine's own, by whichever version it has."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux can make a control group")
    first = Path("/sys/fs/cgroup/memory")
    group = (first if first.is_dir() else Path("/sys/fs/cgroup")) / f"m1-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if first.is_dir() else "memory.max")).write_text(str(256 * MB))
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield group
    group.rmdir()


ASK = "from m1.cgroup import memory_limit; print(memory_limit().limit, memory_limit().available)"


def test_a_real_group_is_read(real_group: Path) -> None:
    command = f'echo $$ > {real_group}/cgroup.procs && exec {sys.executable} -P -c "{ASK}"'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    limit, available = map(int, done.stdout.split())
    assert limit == 256 * MB
    assert 128 * MB < available < limit
    assert psutil.virtual_memory().total > limit, "and the machine has more"
