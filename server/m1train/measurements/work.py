"""Work for a processor whose amount is known: what a call computes or moves, counted, so that time makes it a rate.

Operations are counted as is usual, not as they are carried out: 2 n^3 for a product of n x n matrices, 5 n log2 n for
a transform of n complex numbers (FFTW's benchFFT), 6 per weight and row for the forward and the backward pass of a
linear layer. The triad a = b + 3 c counts three times its array's bytes, as STREAM does (McCalpin 1995): what a cache
reads of `a` before it is written is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD

from m1train.measurements.sensors import largest_cache_bytes
from m1train.randomness import initial_weights

_MATRIX = 1024
_WIDTH, _DEPTH, _BATCH = 2048, 3, 32
_MIXTURE, _EIGEN = 512, 64
_TRANSFORM = 2**18
# STREAM asks for arrays of four times the largest cache.
_CACHES, _LEAST_ARRAY, _LARGEST_ARRAY = 4, 2**26, 2**28


@dataclass(frozen=True)
class Work:
    """Something to do again and again."""

    key: str
    title: str
    unit: str
    amount: float
    """What one call does, in the unit times seconds."""
    call: Callable[[], object]
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """A work that has not been set up: what it takes, and how to set it up."""

    group: str
    key: str
    title: str
    bytes: int
    make: Callable[[], Work]


def plans(threads: int, budget_bytes: int) -> list[Plan]:
    """All works for a memory of that size; each `bytes` is the most that setting it up and doing it may take."""
    array = triad_array_bytes(budget_bytes // 8)
    linear = 4 * _WIDTH * _WIDTH * _DEPTH
    return [
        *(_matmul_plan(dtype) for dtype in (torch.float32, torch.bfloat16, torch.float64)),
        # Weights, gradients, and two packings of the weights; what the first optimizer of a process imports.
        Plan("mlp", "mlp", _MLP_TITLE, 4 * linear + 2**27 + 2**25, mlp),
        Plan("mixture", "mixture", _MIXTURE_TITLE, 2**25, mixture),
        Plan("fft", "fft", _fft_title(threads), threads * 64 * _TRANSFORM + 2**26, lambda: fft(threads)),
        Plan("memory", "triad", _TRIAD_TITLE, 3 * array + 2**22, lambda: triad(array)),
        Plan("memory", "elementwise", _ELEMENTWISE_TITLE, 2**25, elementwise),
    ]


def _matmul_plan(dtype: torch.dtype) -> Plan:
    name = str(dtype).removeprefix("torch.")
    # Some libraries pack both factors anew, and some compute in float32 what is shorter.
    return Plan("matmul", f"matmul_{name}", f"matrix product, {name}", 32 * _MATRIX**2 + 2**24, lambda: matmul(dtype))


def matmul(dtype: torch.dtype) -> Work:
    """A product of two 1024 x 1024 matrices."""
    a, b = (_uniform(_MATRIX, _MATRIX).sub_(0.5).to(dtype) for _ in range(2))
    result = torch.empty(_MATRIX, _MATRIX, dtype=dtype)
    name = str(dtype).removeprefix("torch.")
    amount = 2 * _MATRIX**3 / 1e9
    return Work(
        f"matmul_{name}", f"matrix product, {name}", "GFLOP/s", amount, lambda: torch.mm(a, b, out=result),
        f"{_MATRIX} x {_MATRIX}, 2 n^3 operations",
    )  # fmt: skip


_MLP_TITLE = f"training step of an MLP, {_DEPTH} layers of {_WIDTH}, float32"


def mlp() -> Work:
    """A training step on random data."""
    with initial_weights(0):
        model = nn.Sequential(*(nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.ReLU()) for _ in range(_DEPTH)))
    optimizer = SGD(model.parameters(), lr=1e-3)
    inputs, targets = _uniform(_BATCH, _WIDTH), _uniform(_BATCH, _WIDTH)

    def step() -> None:
        functional.mse_loss(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    # The first layer's inputs need no gradient.
    amount = 2 * _BATCH * _WIDTH**2 * (3 * _DEPTH - 1) / 1e9
    return Work("mlp", _MLP_TITLE, "GFLOP/s", amount, step, f"batches of {_BATCH}, products only")


_MIXTURE_TITLE = "matrix product with sine, exponential and eigenvalues"


def mixture() -> Work:
    """A product, a sine and an exponential of it, and the eigenvalues of a corner."""
    a, b = _uniform(_MIXTURE, _MIXTURE), _uniform(_MIXTURE, _MIXTURE)

    def call() -> Tensor:
        product = torch.mm(a, b)
        values: Tensor = torch.linalg.eigvals(product.sin_().mul_(torch.exp(-a))[:_EIGEN, :_EIGEN])
        return values

    note = f"{_MIXTURE} x {_MIXTURE}, eigenvalues of {_EIGEN} x {_EIGEN}"
    return Work("mixture", _MIXTURE_TITLE, "rounds/s", 1, call, note)


def _fft_title(threads: int) -> str:
    return f"Fourier transforms in {threads} worker{'s' if threads > 1 else ''}"


def fft(workers: int) -> Work:
    """A transform in each of some threads at once."""
    inputs = [torch.complex(_uniform(_TRANSFORM), _uniform(_TRANSFORM)) for _ in range(workers)]
    pool = ThreadPoolExecutor(workers, "fft", initializer=torch.set_num_threads, initargs=(1,))
    amount = workers * 5 * _TRANSFORM * math.log2(_TRANSFORM) / 1e9
    note = f"{_TRANSFORM} complex numbers, 5 n log2 n operations"
    return Work("fft", _fft_title(workers), "GFLOP/s", amount, lambda: list(pool.map(torch.fft.fft, inputs)), note)


_TRIAD_TITLE = "memory bandwidth, triad a = b + 3 c"


def triad_array_bytes(allowed_bytes: int) -> int:
    """How large one of its arrays is."""
    caches = _CACHES * (largest_cache_bytes() or 0)
    return min(max(caches, _LEAST_ARRAY), _LARGEST_ARRAY, max(allowed_bytes, 2**20))


def triad(array_bytes: int) -> Work:
    """Reads two arrays and writes a third."""
    a, b, c = (torch.ones(array_bytes // 4) for _ in range(3))
    note = f"3 arrays of {array_bytes / 1e6:.0f} MB, read or written once each"
    cache = largest_cache_bytes()
    if cache is None:
        note += "; the system does not tell how large its caches are"
    elif array_bytes < _CACHES * cache:
        note += f"; less than {_CACHES} times the cache of {cache / 1e6:.0f} MB: caches help"
    return Work("triad", _TRIAD_TITLE, "GB/s", 3 * a.nbytes / 1e9, lambda: torch.add(b, c, alpha=3, out=a), note)


_ELEMENTWISE_TITLE = "sine and exponential of each element, float32"


def elementwise() -> Work:
    """A sine and an exponential of a million numbers."""
    x = _uniform(2**20)
    y = torch.empty_like(x)
    note = "2^20 numbers"
    return Work("elementwise", _ELEMENTWISE_TITLE, "Gelements/s", 2**20 / 1e9, lambda: torch.sin(x, out=y).exp_(), note)


def _uniform(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))
