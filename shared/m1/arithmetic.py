"""Variables of the environment by which the libraries under torch choose their arithmetic.

Two processes that differ in one of them may train other bits from the same settings: another instruction set, another
number of threads than asked for, another order of a sum. What is known to change nothing is left out by name; the rest
of a library's variables counts, because nobody has shown that it does not.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence

from m1.errors import shortened

COUNT = "variables"

_FAMILIES = (
    "ATEN_CPU_CAPABILITY",  # torch's own kernels
    *("ONEDNN_*", "DNNL_*", "MKLDNN_*", "LRU_CACHE_CAPACITY"),  # oneDNN, and torch's use of it
    *("MKL_*", "VECLIB_*"),
    *("OPENBLAS_*", "GOTO_*", "BLIS_*"),  # whichever of them numpy is built with
    *("OMP_*", "GOMP_*", "KMP_*"),  # the teams of threads, and so where a sum is split
    *("NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES"),
    *("TORCH_*", "TORCHINDUCTOR_*", "TORCHDYNAMO_*", "PYTORCH_*", "TRITON_*"),
    *("CUBLAS_*", "CUBLASLT_*", "CUDNN_*", "NVIDIA_TF32_OVERRIDE"),
    *("HIPBLASLT_*", "ROCBLAS_*", "MIOPEN_*", "HSA_OVERRIDE_*"),
    "GLIBC_TUNABLES",  # which exp and sin glibc takes
    # Which libraries are loaded at all.
    *("LD_PRELOAD", "LD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"),
)
_HARMLESS = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS"),  # the profile's threads, by which m1d sets both
    *("*_VERBOSE*", "*_DISPLAY_*", "*_LOG_LEVEL", "*_LOGS", "*_SHOW_*", "*_JIT_DUMP"),
    *("OMP_WAIT_POLICY", "OMP_STACKSIZE", "GOMP_SPINCOUNT", "GOMP_STACKSIZE", "KMP_BLOCKTIME", "KMP_STACKSIZE"),
    *("*_CACHE_DIR", "TORCH_HOME", "TORCH_EXTENSIONS_DIR", "*_ALLOC_CONF"),
)


def decides_bits(name: str) -> bool:
    """Return True if a variable may change the bits of what is trained."""
    return _matches(name, _FAMILIES) and not _matches(name, _HARMLESS)


def fingerprint(environment: Mapping[str, str]) -> dict[str, str | int]:
    """Give the entries of a fingerprint: how many variables may change bits, and each with a $ before its name.

    What is set to nothing counts as not set.
    """
    found = {f"${name}": value for name, value in sorted(environment.items()) if value and decides_bits(name)}
    return {COUNT: len(found), **found}


def comparable(before: Mapping[str, object], now: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """Give two fingerprints without their counts; where one has none, it knew nothing of variables, and none count."""
    known = COUNT in before and COUNT in now
    old, new = (
        {key: value for key, value in side.items() if key != COUNT and (known or not key.startswith("$"))}
        for side in (before, now)
    )
    return old, new


def unlike(key: str, before: object, now: object) -> str:
    """Say how a variable differs: "ONEDNN_MAX_CPU_ISA was AVX2, is unset"."""
    was, now_is = ("unset" if value is None else shortened(str(value)) for value in (before, now))
    return f"{key.removeprefix('$')} was {was}, is {now_is}"


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
