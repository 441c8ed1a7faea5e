"""What Linux says of the processor. Apple's says it through sysctl."""

from __future__ import annotations


def has_bfloat16(cpuinfo: str) -> bool:
    """Whether a processor has instructions for bfloat16, by its /proc/cpuinfo; others emulate it, slowly."""
    pairs = (line.partition(":") for line in cpuinfo.splitlines())
    features = next((value.split() for key, _, value in pairs if key.strip() in ("flags", "Features")), [])
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(features)
