"""What this machine is made of: its processor, its cores by kind, its memory.

The cores come from the system and never from a table of chips: on macOS from the performance levels that sysctl(3)
tells, on Linux from sysfs, counting only the processors that this process may run on (its affinity). What a CPU quota
leaves of them is told beside them. The functions that read are given the text or the root directory to read from.

No process is forked: sysctl(8) is started the way that uses posix_spawn, which is safe beside a running gRPC.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from m1.cgroup import memory_limit, quota_cores
from m1.processor import has_bfloat16
from m1.readings import optional

# Cores whose capacities differ by less are of one kind: favoured cores of one design clock a few per cent higher,
# while a little core has two thirds of a big one's capacity at most.
_SAME_KIND_RATIO = 0.75


@dataclass(frozen=True)
class CoreKind:
    """The cores of one design."""

    name: str
    """The system's own word in lower case ("performance", "efficiency", "super"); "uniform" where there is one kind."""
    physical_cores: int
    logical_cores: int


@dataclass(frozen=True)
class Topology:
    """The processor and the memory."""

    cpu: str
    """"Apple M1", "AMD EPYC"."""
    core_kinds: tuple[CoreKind, ...]
    """The fastest kind first; never empty."""
    memory_bytes: int
    """The machine's, or what a control group allows of it."""
    quota_cores: float | None = None
    """How many cores' worth of time a control group allows; None without a limit."""
    bfloat16: bool = False
    """Whether the processor computes in bfloat16 by instructions of its own; others emulate it, slowly."""


def read_topology() -> Topology:
    """The topology of the machine that this runs on; of what it does not tell, the least."""
    if sys.platform == "darwin":
        # An absolute path and close_fds=False make subprocess take posix_spawn.
        command = ["/usr/sbin/sysctl", "hw", "machdep.cpu"]
        answer = optional(lambda: subprocess.run(command, capture_output=True, text=True, check=False, close_fds=False))
        topology = macos_topology(parse_sysctl(answer.stdout if answer else ""))
    else:
        affinity = optional(lambda: os.sched_getaffinity(0)) or range(os.cpu_count() or 1)
        topology = linux_topology(Path("/"), frozenset(affinity), os.uname().machine)
    return topology


def default_threads(topology: Topology) -> int:
    """The threads of a job that asks for nothing: the physical cores of the fastest kind, inside the quota; at least 1.

    The slower cores would make every parallel step wait for them: on an M3, 8 to 4 threads took a step from 4.24 to
    2.25 s (OpenKara#256). A profile that was measured on this machine takes this number's place.
    """
    threads = topology.core_kinds[0].physical_cores
    if topology.quota_cores is not None:
        threads = min(threads, int(topology.quota_cores))
    return max(1, threads)


def parse_sysctl(text: str) -> dict[str, str]:
    """The lines "name: value" of sysctl(8)."""
    pairs = (line.partition(": ") for line in text.splitlines())
    return {name.strip(): value.strip() for name, separator, value in pairs if separator}


def macos_topology(values: Mapping[str, str]) -> Topology:
    """The topology from sysctl's values (Apple's "Determining system capabilities").

    Level 0 is the fastest. Virtual machines and newer systems on Intel have one level, called "Standard"; older
    systems on Intel have none.
    """
    kinds: list[CoreKind] = []
    while (physical := values.get(f"hw.perflevel{len(kinds)}.physicalcpu")) is not None:
        level = f"hw.perflevel{len(kinds)}"
        name = values.get(f"{level}.name", "performance" if not kinds else "efficiency").lower()
        kinds.append(CoreKind(name, int(physical), int(values.get(f"{level}.logicalcpu", physical))))
    if not kinds:
        logical = int(values.get("hw.logicalcpu") or values.get("hw.ncpu") or os.cpu_count() or 1)
        kinds = [CoreKind("uniform", int(values.get("hw.physicalcpu", logical)), logical)]
    elif len(kinds) == 1:
        kinds = [CoreKind("uniform", kinds[0].physical_cores, kinds[0].logical_cores)]
    cpu = values.get("machdep.cpu.brand_string", "unknown processor")
    # The M1 has no such instructions; the M2 and what came after it do.
    bfloat16 = values.get("hw.optional.arm.FEAT_BF16") == "1"
    return Topology(cpu, tuple(kinds), int(values.get("hw.memsize", 0)), bfloat16=bfloat16)


def linux_topology(root: Path, affinity: frozenset[int], machine: str) -> Topology:
    """The topology from /proc and /sys below a root.

    Args:
        root: the root of the file system.
        affinity: the processors that count.
        machine: what the processor is called where /proc/cpuinfo has no name for it: "aarch64".
    """
    quota = quota_cores(root)
    kinds = tuple(_core_kind(root, name, cpus) for name, cpus in _kinds(root, affinity))
    bfloat16 = has_bfloat16(_read(root / "proc/cpuinfo"))
    return Topology(_cpu_name(root, machine), kinds, _memory_bytes(root), quota, bfloat16)


def parse_cpu_list(text: str) -> frozenset[int]:
    """The processors of a kernel list: "0-3,8" is 0, 1, 2, 3 and 8."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)


def _kinds(root: Path, affinity: frozenset[int]) -> list[tuple[str, frozenset[int]]]:
    """The processors that count, by kind, the fastest first."""
    # Intel hybrids have one performance-monitoring unit a kind.
    named = optional(lambda: parse_cpu_list(_read(root / "sys/devices/cpu_core/cpus"))) or frozenset()
    fast = named & affinity
    slow = affinity - fast
    if _read(root / "sys/devices/cpu_atom/cpus") and fast and slow:
        return [("performance", fast), ("efficiency", slow)]
    groups = _by_capacity({cpu: _capacity(root, cpu) for cpu in affinity})
    if len(groups) == 1:
        return [("uniform", groups[0])]
    names = ["performance", *["middle"] * (len(groups) - 2), "efficiency"]
    return list(zip(names, groups, strict=True))


def _by_capacity(capacities: Mapping[int, int]) -> list[frozenset[int]]:
    groups: list[set[int]] = []
    fastest = 0
    for cpu in sorted(capacities, key=lambda cpu: (-capacities[cpu], cpu)):
        if not groups or capacities[cpu] < _SAME_KIND_RATIO * fastest:
            groups.append(set())
            fastest = capacities[cpu]
        groups[-1].add(cpu)
    return [frozenset(group) for group in groups]


def _capacity(root: Path, cpu: int) -> int:
    """From 1 to 1024, relative to the fastest core of the machine; 1024 where the kernel does not tell."""
    told = optional(lambda: int(_read(root / f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity")))
    return told or 1024


def _core_kind(root: Path, name: str, cpus: Iterable[int]) -> CoreKind:
    cpus = list(cpus)
    return CoreKind(name, len({_core(root, cpu) for cpu in cpus}), len(cpus))


def _core(root: Path, cpu: int) -> tuple[str, str]:
    """What two processors have in common that are threads of one core."""
    topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    # The list of siblings is exact; core ids repeat between the clusters of some ARM systems.
    siblings = _read(topology / "core_cpus_list") or _read(topology / "thread_siblings_list")
    if siblings:
        return "", siblings
    core_id = _read(topology / "core_id")
    return (_read(topology / "physical_package_id"), core_id) if core_id else ("cpu", str(cpu))


def _cpu_name(root: Path, machine: str) -> str:
    pairs = [line.partition(":") for line in _read(root / "proc/cpuinfo").splitlines()]
    named = {key.strip(): value.strip() for key, _, value in reversed(pairs)}
    board = _read(root / "sys/firmware/devicetree/base/model").rstrip("\0")
    return named.get("model name") or named.get("Model") or named.get("Hardware") or board or machine


def _memory_bytes(root: Path) -> int:
    machine = 0
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            machine = int(line.split()[1]) * 1024
    limit = memory_limit(root).limit
    return machine if limit is None else min(machine or limit, limit)


def _read(path: Path) -> str:
    """The file's text without the blanks around it; empty where there is none, as on most machines for most files."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
