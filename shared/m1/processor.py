"""What the system says of the processor."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path


def has_bfloat16(cpuinfo: str) -> bool:
    """Whether a processor has instructions for bfloat16, by its /proc/cpuinfo; others emulate it, slowly."""
    pairs = (line.partition(":") for line in cpuinfo.splitlines())
    features = next((value.split() for key, _, value in pairs if key.strip() in ("flags", "Features")), [])
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(features)


def this_one_has_bfloat16() -> bool:
    """Return True if the processor that this runs on has instructions for bfloat16, as far as the system tells."""
    if sys.platform == "darwin":
        found, size = ctypes.c_int(0), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
        name = b"hw.optional.arm.FEAT_BF16"
        result = ctypes.CDLL(None).sysctlbyname(name, ctypes.byref(found), ctypes.byref(size), None, ctypes.c_size_t(0))
        return result == 0 and found.value == 1
    else:  # noqa: RET505 - what follows a return is dead code to mypy on a Mac
        try:
            return has_bfloat16(Path("/proc/cpuinfo").read_text(errors="replace"))
        except OSError:
            return False
