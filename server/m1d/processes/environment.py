"""What of the daemon's environment reaches the processes that it starts.

An allow-list: the shell that happened to start the daemon must not decide what is trained. What a process needs to
find its files, its libraries, its devices and the network passes; what a person adds in config.toml passes, too:

    [environment]
    pass = ["HF_*", "WANDB_API_KEY"]     # names of the daemon's own environment; * stands for anything

    [environment.set]
    HF_HOME = "/data/hf"                 # whatever the daemon's environment says

Names in the place of values are all that is ever shown of it: values can be secrets.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass

from m1.arithmetic import decides_bits

from m1d.home.config import EnvironmentConfig

PASSED = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TEMP", "TMP", "XDG_*"),
    *("LANG", "LANGUAGE", "LC_*", "LOCALE_ARCHIVE", "TZ"),
    *("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "NIX_SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "CUDA_PATH", "NVIDIA_VISIBLE_DEVICES"),
    *("NVIDIA_DRIVER_CAPABILITIES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"),
    # What the daemon's own interpreter and its libraries were found by: without them another one would start, or none.
    *("PYTHONHOME", "PYTHONPATH", "PYTHONUSERBASE", "PYTHONNOUSERSITE", "PYTHONPYCACHEPREFIX"),
    *("PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV"),
    *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"),
    "TORCH_HOME",
    # Our own.
    *("M1D_*", "M1_*"),
)
"""What passes unless a person says more; `*` stands for anything."""


@dataclass(frozen=True)
class Variables:
    """The names of the daemon's environment by what becomes of them, each sorted."""

    passed: tuple[str, ...]
    fixed: tuple[str, ...]
    """Set by config.toml."""
    withheld: tuple[str, ...]
    """Of these a process knows nothing."""
    deciding: tuple[str, ...]
    """Those of `withheld` that could change the bits of what is trained."""


def environment(source: Mapping[str, str], config: EnvironmentConfig) -> dict[str, str]:
    """Give what reaches a process.

    Args:
        source: the environment of whoever asks: the daemon's, or that of the shell in which a program is handed in.
        config: what a person lets through or sets besides.
    """
    kept = {name: value for name, value in source.items() if _passes(name, config)}
    return kept | dict(config.fixed)


def variables(source: Mapping[str, str], config: EnvironmentConfig) -> Variables:
    """Say by name what becomes of each variable."""
    passed = {name for name in source if _passes(name, config)} - config.fixed.keys()
    withheld = sorted(source.keys() - passed - config.fixed.keys())
    return Variables(
        passed=tuple(sorted(passed)),
        fixed=tuple(sorted(config.fixed)),
        withheld=tuple(withheld),
        deciding=tuple(name for name in withheld if decides_bits(name)),
    )


def training_environment(passed: Mapping[str, str], threads: int | None = None) -> dict[str, str]:
    """Give the environment of the training package's processes.

    Args:
        passed: what `environment` gave.
        threads: fixed before any library reads them; None: as each library has it.
    """
    fixed = {} if threads is None else {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return {**passed, **fixed, "PYTHONUNBUFFERED": "1"}


def _passes(name: str, config: EnvironmentConfig) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in (*PASSED, *config.passed))
