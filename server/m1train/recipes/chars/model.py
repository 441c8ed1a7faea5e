"""A GPT (Radford et al. 2019), as nanoGPT has it: pre-norm blocks, no biases, the head tied to the embedding.

Two products are computed another way where that is faster on a CPU; the sums are the same, in another order.
`bench/chars.py` measures them. Both ways follow from the processor and the number format, never from a clock, so a
training that goes on on the same machine goes on exactly.

Dropout, where there is any, is on the embeddings and on what each block adds to the residual stream. There is none on
the attention's weights: it would take scaled_dot_product_attention's fast path away on a CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

# The standard deviation of GPT-2's initial weights.
_STD = 0.02
# The longest text for which a CPU is faster, or as fast, with the [T, T] matrix of the weights than in blocks of it.
_LONGEST_EXPLICIT = {torch.float32: 128, torch.bfloat16: 512}


@dataclass(frozen=True)
class Shape:
    """What a GPT is built by."""

    n_symbols: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float = 0.0


class Attention(nn.Module):
    """Causal self-attention of several heads."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.n_head = shape.n_head
        self.qkv = nn.Linear(shape.n_embd, 3 * shape.n_embd, bias=False)
        self.projection = nn.Linear(shape.n_embd, shape.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Let each position attend to itself and to those before it: [B, T, C] to [B, T, C]."""
        b, t, c = x.shape
        heads = _linear(x, self.qkv.weight).view(b, t, 3, self.n_head, c // self.n_head).permute(2, 0, 3, 1, 4)
        return _linear(_attended(heads).transpose(1, 2).reshape(b, t, c), self.projection.weight)


class Block(nn.Module):
    """Attention and MLP, each after a LayerNorm and added to the residual stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(shape.n_embd, bias=False)
        self.attention = Attention(shape)
        self.mlp_norm = nn.LayerNorm(shape.n_embd, bias=False)
        self.hidden = nn.Linear(shape.n_embd, 4 * shape.n_embd, bias=False)
        self.projection = nn.Linear(4 * shape.n_embd, shape.n_embd, bias=False)
        self.dropout = shape.dropout

    def forward(self, x: Tensor, generator: Generator | None) -> Tensor:
        """[B, T, C] to [B, T, C]."""
        x = x + _dropped(self.attention(self.attention_norm(x)), self.dropout, generator)
        hidden = functional.gelu(_linear(self.mlp_norm(x), self.hidden.weight))
        added: Tensor = x + _dropped(_linear(hidden, self.projection.weight), self.dropout, generator)
        return added


class GPT(nn.Module):
    """[B, T] symbols to [B, T, V] logits of the symbol that comes next; T is block_size at most."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.symbols = nn.Embedding(shape.n_symbols, shape.n_embd)
        self.positions = nn.Embedding(shape.block_size, shape.n_embd)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.n_layer))
        self.norm = nn.LayerNorm(shape.n_embd, bias=False)
        self._scale_initial_weights()

    def forward(self, symbols: Tensor, generator: Generator | None = None) -> Tensor:
        """The logits; without a generator nothing is dropped."""
        x = self.symbols(symbols) + self.positions.weight[: symbols.shape[1]]
        x = _dropped(x, self.shape.dropout, generator)
        for block in self.blocks:
            x = block(x, generator)
        return _linear(self.norm(x), self.symbols.weight)

    @torch.no_grad()
    def _scale_initial_weights(self) -> None:
        """Bring torch's initial weights to GPT-2's standard deviations; what ends in a sum starts smaller."""
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            # torch draws an embedding from N(0, 1), and a linear layer's from U(-1, 1) / sqrt(inputs).
            drawn = 1.0 if name.startswith(("symbols", "positions")) else 1 / math.sqrt(3 * parameter.shape[1])
            wanted = _STD / math.sqrt(2 * self.shape.n_layer) if name.endswith("projection.weight") else _STD
            parameter.mul_(wanted / drawn)


def _attended(heads: Tensor) -> Tensor:
    """Queries, keys and values [3, B, H, T, C/H] to what each position attends to: [B, H, T, C/H]."""
    _, b, h, t, d = heads.shape
    if heads.device.type != "cpu" or t > _LONGEST_EXPLICIT.get(heads.dtype, 0):
        q, k, v = heads
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    q, k, v = heads.reshape(3, b * h, t, d)
    future = torch.full((t, t), -math.inf, dtype=heads.dtype).triu_(1)
    scores = torch.baddbmm(future, q, k.transpose(1, 2), alpha=1 / math.sqrt(d))
    return torch.bmm(functional.softmax(scores, dim=-1), v).view(b, h, t, d)


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    """[B, T, C] times [D, C], transposed: [B, T, D]."""
    in_float32 = x.dtype is torch.float32 and not torch.is_autocast_enabled("cpu")
    # Of one text that grows by a character at a time, oneDNN would build a kernel for each length.
    if in_float32 and len(x) > 1 and x.device.type == "cpu" and _convolves_faster():
        pixels = x.reshape(1, *x.shape).permute(0, 3, 1, 2)
        return functional.conv2d(pixels, weight[:, :, None, None]).permute(0, 2, 3, 1)[0]
    return functional.linear(x, weight)


@cache
def _convolves_faster() -> bool:
    """Return True if a 1x1 convolution is the faster matrix product in float32.

    torch leaves matrix products to MKL, which keeps to AVX2 on a processor that is not Intel's, and convolutions to
    oneDNN, which takes the AVX-512 that it finds.
    """
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    name = str(getattr(torch.cpu, "get_capabilities", dict[str, object])().get("cpu_name", ""))
    onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    mkl: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    return wide and name.startswith("AMD") and mkl and onednn


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _dropped(x: Tensor, p: float, generator: Generator | None) -> Tensor:
    if p == 0 or generator is None:
        return x
    return x * torch.empty_like(x).bernoulli_(1 - p, generator=generator).div_(1 - p)
