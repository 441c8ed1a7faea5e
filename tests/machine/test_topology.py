"""The cores of machines that we have and of machines that others have recorded."""

import os
import sys
from pathlib import Path

import pytest
from m1.cgroup import quota_cores
from m1d.machine.topology import (
    CoreKind,
    Topology,
    default_threads,
    linux_topology,
    macos_topology,
    parse_cpu_list,
    parse_sysctl,
    read_topology,
)

# `sysctl hw machdep.cpu`, shortened, from public reports; the first lines of the M1 Pro as in Dr-Noob/cpufetch#139.
M1 = """\
hw.ncpu: 8
hw.byteorder: 1234
hw.memsize: 17179869184
hw.activecpu: 8
hw.perflevel0.physicalcpu: 4
hw.perflevel0.physicalcpu_max: 4
hw.perflevel0.logicalcpu: 4
hw.perflevel0.logicalcpu_max: 4
hw.perflevel0.l2cachesize: 12582912
hw.perflevel0.cpusperl2: 4
hw.perflevel0.name: Performance
hw.perflevel1.physicalcpu: 4
hw.perflevel1.logicalcpu: 4
hw.perflevel1.name: Efficiency
hw.physicalcpu: 8
hw.logicalcpu: 8
hw.nperflevels: 2
machdep.cpu.cores_per_package: 8
machdep.cpu.brand_string: Apple M1
"""
M1_PRO_BEFORE_LEVELS_HAD_NAMES = """\
hw.ncpu: 10
hw.byteorder: 1234
hw.activecpu: 10
hw.perflevel1.cpusperl2: 2
hw.perflevel1.l1dcachesize: 65536
hw.perflevel1.logicalcpu: 2
hw.perflevel1.logicalcpu_max: 2
hw.perflevel1.physicalcpu: 2
hw.perflevel1.physicalcpu_max: 2
hw.perflevel0.cpusperl2: 4
hw.perflevel0.logicalcpu: 8
hw.perflevel0.physicalcpu: 8
hw.memsize: 34359738368
machdep.cpu.brand_string: Apple M1 Pro
"""
M3_PRO = """\
hw.memsize: 19327352832
hw.perflevel0.physicalcpu: 5
hw.perflevel0.logicalcpu: 5
hw.perflevel0.name: Performance
hw.perflevel1.physicalcpu: 6
hw.perflevel1.logicalcpu: 6
hw.perflevel1.name: Efficiency
hw.nperflevels: 2
machdep.cpu.brand_string: Apple M3 Pro
"""
M6 = """\
hw.memsize: 34359738368
hw.physicalcpu: 12
hw.logicalcpu: 12
hw.nperflevels: 3
hw.perflevel0.name: Super
hw.perflevel0.physicalcpu: 2
hw.perflevel1.name: Performance
hw.perflevel1.physicalcpu: 4
hw.perflevel2.name: Efficiency
hw.perflevel2.physicalcpu: 6
machdep.cpu.brand_string: Apple M6
"""
M1_VIRTUAL = """\
hw.memsize: 7516192768
hw.nperflevels: 1
hw.perflevel0.physicalcpu: 3
hw.perflevel0.logicalcpu: 3
hw.perflevel0.name: Standard
machdep.cpu.brand_string: Apple M1 (Virtual)
"""
INTEL_MAC = """\
hw.ncpu: 16
hw.activecpu: 16
hw.physicalcpu: 8
hw.physicalcpu_max: 8
hw.logicalcpu: 16
hw.logicalcpu_max: 16
hw.memsize: 34359738368
machdep.cpu.brand_string: Intel(R) Core(TM) i9-9980HK CPU @ 2.40GHz
"""


@pytest.mark.parametrize(
    ("recorded", "cpu", "kinds", "memory_bytes", "threads"),
    [
        (M1, "Apple M1", [("performance", 4, 4), ("efficiency", 4, 4)], 16 * 2**30, 4),
        (
            M1_PRO_BEFORE_LEVELS_HAD_NAMES,
            "Apple M1 Pro",
            [("performance", 8, 8), ("efficiency", 2, 2)],
            32 * 2**30,
            8,
        ),
        (M3_PRO, "Apple M3 Pro", [("performance", 5, 5), ("efficiency", 6, 6)], 18 * 2**30, 5),
        (M6, "Apple M6", [("super", 2, 2), ("performance", 4, 4), ("efficiency", 6, 6)], 32 * 2**30, 2),
        (M1_VIRTUAL, "Apple M1 (Virtual)", [("uniform", 3, 3)], 7 * 2**30, 3),
        (INTEL_MAC, "Intel(R) Core(TM) i9-9980HK CPU @ 2.40GHz", [("uniform", 8, 16)], 32 * 2**30, 8),
    ],
    ids=["M1", "M1 Pro", "M3 Pro", "M6", "virtual", "Intel"],
)
def test_a_mac_tells_its_cores_by_kind(
    recorded: str, cpu: str, kinds: list[tuple[str, int, int]], memory_bytes: int, threads: int
) -> None:
    topology = macos_topology(parse_sysctl(recorded))

    assert topology == Topology(cpu, tuple(CoreKind(*kind) for kind in kinds), memory_bytes)
    assert default_threads(topology) == threads


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def machine(root: Path, *, cores: list[list[int]], name: str = "model name\t: AMD EPYC") -> Path:
    """A root with these cores, each a list of its processors."""
    write(root / "proc/cpuinfo", f"processor\t: 0\n{name}\n\nprocessor\t: 1\nmodel name\t: another")
    write(root / "proc/meminfo", "MemTotal:       24689764 kB\nMemFree: 1 kB")
    for core_id, cpus in enumerate(cores):
        for cpu in cpus:
            topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
            write(topology / "core_id", str(core_id))
            write(topology / "physical_package_id", "0")
    return root


def test_two_threads_of_one_core_are_one_physical_core(tmp_path: Path) -> None:
    root = machine(tmp_path, cores=[[0, 2], [1, 3]])

    topology = linux_topology(root, frozenset(range(4)), "x86_64")

    assert topology == Topology("AMD EPYC", (CoreKind("uniform", 2, 4),), 24689764 * 1024)
    assert default_threads(topology) == 2


def test_processors_outside_the_affinity_do_not_count(tmp_path: Path) -> None:
    root = machine(tmp_path, cores=[[0, 4], [1, 5], [2, 6], [3, 7]])

    assert linux_topology(root, frozenset({1, 5, 6}), "x86_64").core_kinds == (CoreKind("uniform", 2, 3),)


def test_siblings_are_believed_more_than_core_ids_that_repeat(tmp_path: Path) -> None:
    root = machine(tmp_path, cores=[[0], [1]])
    for cpu in (0, 1):
        write(root / f"sys/devices/system/cpu/cpu{cpu}/topology/core_id", "0")
        write(root / f"sys/devices/system/cpu/cpu{cpu}/topology/core_cpus_list", str(cpu))

    assert linux_topology(root, frozenset({0, 1}), "aarch64").core_kinds == (CoreKind("uniform", 2, 2),)


def test_an_intel_hybrid_has_two_kinds(tmp_path: Path) -> None:
    # i5-12500H: four performance cores with two threads, eight efficiency cores.
    cores = [[0, 1], [2, 3], [4, 5], [6, 7], *[[cpu] for cpu in range(8, 16)]]
    root = machine(tmp_path, cores=cores)
    write(root / "sys/devices/cpu_core/cpus", "0-7")
    write(root / "sys/devices/cpu_atom/cpus", "8-15")

    topology = linux_topology(root, frozenset(range(16)), "x86_64")

    assert topology.core_kinds == (CoreKind("performance", 4, 8), CoreKind("efficiency", 8, 8))
    assert default_threads(topology) == 4


def test_an_intel_hybrid_of_which_only_the_efficiency_cores_are_ours_is_uniform(tmp_path: Path) -> None:
    root = machine(tmp_path, cores=[[0, 1], [2], [3]])
    write(root / "sys/devices/cpu_core/cpus", "0-1")
    write(root / "sys/devices/cpu_atom/cpus", "2-3")

    assert linux_topology(root, frozenset({2, 3}), "x86_64").core_kinds == (CoreKind("uniform", 2, 2),)


def test_big_and_little_cores_are_told_by_their_capacity(tmp_path: Path) -> None:
    root = machine(tmp_path, cores=[[cpu] for cpu in range(8)], name="BogoMIPS\t: 48.00")
    for cpu, capacity in enumerate([530, 530, 530, 530, 1024, 1024, 997, 997]):
        write(root / f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity", str(capacity))
    (root / "proc/cpuinfo").write_text("processor\t: 0\nBogoMIPS\t: 48.00\n")

    topology = linux_topology(root, frozenset(range(8)), "aarch64")

    assert topology.core_kinds == (CoreKind("performance", 4, 4), CoreKind("efficiency", 4, 4))
    assert topology.cpu == "aarch64"


def test_a_machine_that_tells_nothing_still_has_its_processors(tmp_path: Path) -> None:
    topology = linux_topology(tmp_path, frozenset({0, 1, 2}), "riscv64")

    assert topology == Topology("riscv64", (CoreKind("uniform", 3, 3),), 0)


@pytest.mark.parametrize(("cpu_max", "threads"), [("150000 100000", 1), ("300000 100000", 3), ("5000 100000", 1)])
def test_threads_stay_inside_the_quota(tmp_path: Path, cpu_max: str, threads: int) -> None:
    root = machine(tmp_path, cores=[[cpu] for cpu in range(8)])
    write(root / "proc/self/cgroup", "0::/")
    write(root / "sys/fs/cgroup/cpu.max", cpu_max)

    assert default_threads(linux_topology(root, frozenset(range(8)), "x86_64")) == threads


def test_the_tightest_quota_on_the_way_up_holds(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "1:name=systemd:/\n0::/user.slice/app.slice")
    write(tmp_path / "sys/fs/cgroup/user.slice/app.slice/cpu.max", "max 100000")
    write(tmp_path / "sys/fs/cgroup/user.slice/cpu.max", "250000 100000")
    write(tmp_path / "cpu.max", "1000 100000")  # outside the mount: not a quota

    assert quota_cores(tmp_path) == 2.5


def test_without_a_quota_there_is_none(tmp_path: Path) -> None:
    assert quota_cores(tmp_path) is None
    write(tmp_path / "proc/self/cgroup", "0::/")
    assert quota_cores(tmp_path) is None


def test_a_kernel_list_is_read() -> None:
    assert parse_cpu_list("0-3,8,10-11\n") == {0, 1, 2, 3, 8, 10, 11}
    assert parse_cpu_list("") == frozenset()


def test_this_machine_has_what_it_has() -> None:
    topology = read_topology()

    assert topology.cpu
    assert topology.memory_bytes > 2**28
    logical = sum(kind.logical_cores for kind in topology.core_kinds)
    assert logical == (len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count())
    assert 1 <= default_threads(topology) <= topology.core_kinds[0].physical_cores


@pytest.mark.parametrize(
    ("line", "has"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 vnmi", True),
        ("flags\t\t: fpu avx2 avx512f", False),
        ("Features\t: fp asimd sve bf16 i8mm", True),
        ("", False),
    ],
)
def test_instructions_for_bfloat16_are_found_among_the_processors_features(
    tmp_path: Path, line: str, has: bool
) -> None:
    root = machine(tmp_path, cores=[[0], [1]], name=f"model name\t: AMD EPYC\n{line}")
    assert linux_topology(root, frozenset({0, 1}), "x86_64").bfloat16 is has


def test_a_mac_says_whether_it_has_instructions_for_bfloat16() -> None:
    for value, has in (("1", True), ("0", False)):
        assert macos_topology(parse_sysctl(f"hw.ncpu: 8\nhw.optional.arm.FEAT_BF16: {value}")).bfloat16 is has
