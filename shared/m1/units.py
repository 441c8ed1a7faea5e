"""Numbers as people read them."""

from __future__ import annotations


def counted(n: int, one: str, many: str) -> str:
    """A number and what it counts: "1 picture", "30 pictures"."""
    return f"{n:,} {one if n == 1 else many}"


def format_bytes(size_bytes: float) -> str:
    """Decimal units with three significant digits: 18846648 is "18.8 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 999.5:
            return f"{size_bytes:.0f} {unit}" if unit == "B" or size_bytes >= 99.95 else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


def format_duration(seconds: float) -> str:
    """The two largest units: "4.2 s", "3m 05s", "2h 07m", "1d 03h"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02d}h"
