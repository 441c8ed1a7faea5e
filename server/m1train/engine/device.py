"""How the machine runs the training: threads, device, number format, memory layout, and what of it affects bits."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from m1 import arithmetic
from m1.errors import M1Error, Reason
from m1.jobdir import Profile
from torch import Tensor
from torch.optim import Optimizer

from m1train.task.recipe import Batch

# <sys/qos.h>: QOS_CLASS_USER_INITIATED. Threads inherit the class of the thread that makes them.
_QOS_CLASS_USER_INITIATED = 0x19
# <malloc.h> of glibc.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Keeps small gradients out of float16's subnormal numbers (Micikevicius et al. 2018). A constant, so that no state of
# it must be saved; a gradient that overflows by it stops the training as any other that is not finite.
_FLOAT16_LOSS_SCALE = 1024.0
_PRODUCT_DTYPES = ("bfloat16", "float32")
_SWITCHES = ("compile", "nnpack", "fused")
_MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


@dataclass(frozen=True)
class Device:
    """The profile, as torch takes it."""

    device: torch.device
    dtype: torch.dtype
    memory_format: torch.memory_format
    profile: Profile
    notice: str = ""
    """A sentence for the person, when it is not quite what the profile asked for."""

    def prepare_model(self, model: torch.nn.Module) -> torch.nn.Module:
        """Move the model to the device, in the memory format."""
        moved: torch.nn.Module = model.to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload]
        return moved

    def prepare_optimizer(self, optimizer: Optimizer) -> Optimizer:
        """Note the optimizer's first rates, and have it compute as the profile says.

        What an optimizer can be told stands in its groups: "fused", as torch's own have it, for one kernel that makes
        the whole step; "product_dtype" for the number format of matrix products, where it makes any.
        """
        # One that is made with a state (Adagrad) has put it where the kernel that it was made for wants it.
        settled = bool(optimizer.state) and self.device.type != "cpu"
        for group in optimizer.param_groups:
            if not settled and "fused" in group and group["fused"] is not False:
                group["fused"] = self.profile.fused or None
            if "product_dtype" in group:
                group["product_dtype"] = _DTYPES[self.profile.optimizer_dtype]
            group["initial_lr"] = group["lr"]
        return optimizer

    def compiled(self, model: torch.nn.Module) -> torch.nn.Module:
        """What to call in the place of the model; its parameters and buffers stay the model's."""
        return torch.compile(model) if self.profile.compile else model  # type: ignore[return-value]

    @property
    def loss_scale(self) -> float:
        """What the loss is multiplied by before the backward pass, and the gradients are divided by after it."""
        return _FLOAT16_LOSS_SCALE if self.dtype is torch.float16 else 1.0

    def laid_out(self, batch: Batch) -> Batch:
        """Lay a batch out where it is: what a thread may do beside the training's.

        Two threads that bring something to a GPU at once end the process on mps (pytorch#197805).
        """
        return batch.map(self._laid_out)

    def to_device(self, batch: Batch) -> Batch:
        """Bring a batch to the device, laid out; for the training's thread."""
        return batch.map(lambda tensor: self._laid_out(tensor).to(self.device))

    def _laid_out(self, tensor: Tensor) -> Tensor:
        # A memory format is of what a convolution takes: [B, C, H, W], in floating point.
        if tensor.ndim == 4 and tensor.is_floating_point():
            return tensor.contiguous(memory_format=self.memory_format)
        return tensor

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context of the forward pass."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32)


def set_up(profile: Profile) -> Device:
    """Apply the profile to this process. Call it before torch computes anything: its threads are made once.

    Raises:
        M1Error: as `place`.
    """
    device = place(profile)
    _set_quality_of_service()
    _keep_freed_memory()
    torch.set_num_interop_threads(profile.interop_threads)
    switch(profile)
    return device


def place(profile: Profile) -> Device:
    """The profile as torch takes it; nothing of this process changes.

    Raises:
        M1Error: INVALID_ARGUMENT for a word that is unknown, UNSUPPORTED for a device that is not there.
    """
    _check("dtype", profile.dtype, list(_DTYPES))
    _check("optimizer_dtype", profile.optimizer_dtype, list(_PRODUCT_DTYPES))
    _check("memory_format", profile.memory_format, list(_MEMORY_FORMATS))
    _check("device", profile.device, ["cpu", "mps", "cuda"])
    there = devices()
    if profile.device not in there:
        message = f'torch finds no device "{profile.device}" here'
        hint = f"there is {', '.join(there)}"
        raise M1Error(Reason.UNSUPPORTED, message, hint, field="profile.device", value=profile.device)
    if profile.dtype == "float16" and profile.device == "cpu":
        message = 'the profile\'s dtype="float16" is not sound on a CPU'
        hint = "take float32 or bfloat16"
        raise M1Error(Reason.INVALID_ARGUMENT, message, hint, field="profile.dtype", value=profile.dtype)
    memory_format, notice = _MEMORY_FORMATS[profile.memory_format], ""
    if profile.device == "mps" and memory_format is torch.channels_last:
        # BatchNorm's backward gives wrong gradients there (pytorch#175189).
        memory_format, notice = torch.contiguous_format, "channels_last is wrong on mps: trained in contiguous memory"
    return Device(torch.device(profile.device), _DTYPES[profile.dtype], memory_format, profile, notice)


def switch(profile: Profile) -> None:
    """Set what of a profile is the whole process's, and may be changed between two steps."""
    torch.set_num_threads(profile.threads)
    torch.backends.nnpack.set_flags(profile.nnpack)  # type: ignore[no-untyped-call]
    on_cuda = profile.device == "cuda"
    if on_cuda:
        # Read when cuBLAS starts; without it the order of its sums is not fixed (cuBLAS, "Results reproducibility").
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic = on_cuda
    torch.backends.cudnn.benchmark = False
    if torch.are_deterministic_algorithms_enabled() != on_cuda:  # to ask for it costs an import
        # What has no such algorithm is named in a warning, and computed all the same.
        torch.use_deterministic_algorithms(on_cuda, warn_only=on_cuda)


def devices() -> list[str]:
    """What torch finds here; "cpu" is always first."""
    there = {"cpu": True, "mps": torch.backends.mps.is_available(), "cuda": torch.cuda.is_available()}
    return [name for name, available in there.items() if available]


def fingerprint(profile: Profile, environment: Mapping[str, str] = os.environ) -> dict[str, str | int]:
    """What of this machine, its profile and the environment's variables affects the bits of what is trained."""
    # A library chooses its kernels by the processor, so two with the same instructions may differ in a sum's last bit.
    named = {"processor": _processor(), "gpu": torch.cuda.get_device_name() if profile.device == "cuda" else ""}
    return {
        "torch": torch.__version__,
        "machine": f"{platform.system()} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "device": profile.device,
        "threads": profile.threads,
        "interop_threads": profile.interop_threads,
        "dtype": profile.dtype,
        "memory_format": profile.memory_format,
        **arithmetic.fingerprint(environment),
        **{key: name for key, name in named.items() if name},
        # Where they are as they always were, they are not named: checkpoints of earlier versions don't know them.
        **{name: int(getattr(profile, name)) for name in _SWITCHES if getattr(profile, name) != getattr(Profile, name)},
        **({"optimizer_dtype": profile.optimizer_dtype} if profile.optimizer_dtype != Profile.optimizer_dtype else {}),
    }


def _processor() -> str:
    """Its name, "AMD EPYC"; empty where this torch does not tell."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict[str, object])()
    return str(capabilities.get("cpu_name", ""))


def _check(field: str, value: str, known: list[str]) -> None:
    if value not in known:
        message = f'the profile\'s {field}="{value}" is unknown'
        hint = f"one of {', '.join(known)}"
        raise M1Error(Reason.INVALID_ARGUMENT, message, hint, field=f"profile.{field}", value=value)


def _keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next step, of blocks of any size.

    Left to itself it gives the large ones back to the system, which zeroes each page again when it is touched.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # musl has none
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def _set_quality_of_service() -> None:
    """On macOS, ask for the fast cores: a process that launchd's agent started would otherwise inherit its class."""
    if sys.platform == "darwin":
        libc = ctypes.CDLL(None, use_errno=True)
        result = libc.pthread_set_qos_class_self_np(ctypes.c_uint(_QOS_CLASS_USER_INITIATED), ctypes.c_int(0))
        if result != 0:
            raise OSError(result, "pthread_set_qos_class_self_np")
