"""What the control groups of this process allow: memory and time of the processors, of both versions of cgroups.

A container or a slice of systemd may have far less than the machine. Each group is inside its parent's limits, so the
least of all on the way up counts. Everything is read below a root that can be passed in; what can't be read limits
nothing, and elsewhere than on Linux there is nothing to read. See cgroups(7), and Documentation/admin-guide/cgroup-v2
and cgroup-v1/memory in the kernel's tree.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from m1.readings import optional

_ROOT = Path("/")
# Version 1 says "no limit" by the largest multiple of a page below 2^63.
_UNLIMITED = 2**60


@dataclass(frozen=True)
class MemoryLimit:
    """What the groups leave, in bytes; None: they don't limit it."""

    limit: int | None
    available: int | None
    """What can still be taken; files in the page cache are given back for it, and count as free."""


@dataclass(frozen=True)
class _Names:
    """How a version calls its files."""

    limits: tuple[str, ...]
    used: str
    oom: str
    cached: tuple[str, ...]


_V1 = _Names(
    ("memory.limit_in_bytes",),
    "memory.usage_in_bytes",
    "memory.oom_control",
    ("total_inactive_file", "total_active_file"),
)
# Above `high` a group is not killed but slowed down until it has given memory back.
_V2 = _Names(
    ("memory.max", "memory.high"),
    "memory.current",
    "memory.events",
    ("inactive_file", "active_file", "slab_reclaimable"),
)


def memory_limit(root: Path = _ROOT) -> MemoryLimit:
    """Read what memory the groups of this process allow, and what of that is left."""
    limits: list[int] = []
    left: list[int] = []
    for names, controller in ((_V1, "memory"), (_V2, "")):
        for group in _groups(root, controller):
            values = [number for name in names.limits if (number := _number(group / name)) is not None]
            limit = min(values, default=_UNLIMITED)
            if limit >= _UNLIMITED:
                continue
            limits.append(limit)
            used = _number(group / names.used)
            if used is not None:
                counters = _counters(group / "memory.stat")
                cached = sum(counters.get(name, 0) for name in names.cached)
                left.append(max(0, limit - max(0, used - cached)))
    least = min(limits, default=None)
    return MemoryLimit(least, min(left, default=least))


def quota_cores(root: Path = _ROOT) -> float | None:
    """Read how many cores' worth of time the groups of this process allow: the tightest; None without a limit."""
    quotas: list[float] = []
    for group in _groups(root, "cpu"):
        quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
        if quota is not None and quota > 0 and period:
            quotas.append(quota / period)
    for group in _groups(root, ""):
        words = _text(group / "cpu.max").split()
        if len(words) == 2 and words[0] != "max":
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def usable_cores(root: Path = _ROOT) -> int:
    """Count the cores that this process may keep busy: those that it may run on, and no more than a quota allows."""
    if sys.platform == "linux":
        mine = optional(lambda: set(os.sched_getaffinity(0))) or {0}
        cores = len(mine)
    else:
        cores = os.cpu_count() or 1
    quota = quota_cores(root)
    return cores if quota is None else max(1, min(cores, int(quota)))


def oom_kills(root: Path = _ROOT) -> int | None:
    """Count the processes that were killed for want of memory: by the machine or a group; None where neither tells.

    Only a difference tells something: a kill may be counted by both.
    """
    counts = [_counters(root / "proc/vmstat").get("oom_kill")]
    for names, controller in ((_V1, "memory"), (_V2, "")):
        own = next(_groups(root, controller), None)
        counts.append(_counters(own / names.oom).get("oom_kill") if own else None)
    told = [count for count in counts if count is not None]
    return sum(told) if told else None


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The directories of this process's group and of all around it, the innermost first.

    Args:
        root: the root of the file system.
        controller: of version 1; "" for version 2, where one tree has all of them.
    """
    member = _member(root, controller)
    if member is None:
        return
    for mount, mounted in _mounts(root, controller):
        # In a container the mount may show only a part of the tree, and the member's path is of the whole.
        inside = member if mounted == "/" else member.removeprefix(mounted) if member.startswith(mounted) else ""
        group = mount / inside.strip("/")
        if ".." in group.parts:  # it was moved out of what this process sees
            group = mount
        around = (path for path in (group, *group.parents) if path == mount or mount in path.parents)
        yield from (path for path in around if path.is_dir())
        return


def _member(root: Path, controller: str) -> str | None:
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if (controller in controllers.split(",")) if controller else (number == "0" and not controllers):
            return path
    return None


def _mounts(root: Path, controller: str) -> Iterator[tuple[Path, str]]:
    """Where a tree is mounted, and which part of it; where the system is used to mount it, if it does not tell."""
    for line in _text(root / "proc/self/mountinfo").splitlines():
        words, _, after = line.partition(" - ")
        fields, kind = words.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == ("cgroup" if controller else "cgroup2") and (not controller or controller in kind[2].split(",")):
            yield root / fields[4].lstrip("/"), fields[3]
    yield root / "sys/fs/cgroup" / controller, "/"


def _number(path: Path) -> int | None:
    """The number in a file; None for "max", and where there is none."""
    try:
        return int(_text(path))
    except ValueError:
        return None


def _counters(path: Path) -> dict[str, int]:
    """The numbers of a file with a name and a number on each line."""
    pairs = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
