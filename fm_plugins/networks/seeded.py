"""Layers whose weights come from a generator of their own, by PyTorch's rules; the global generators are not touched.

    linear, convolution    U(−b, b),  b = 1/√(fan-in),  weights and biases
    embedding              N(0, std²)

They are drawn on the CPU, layer by layer in the order of construction, so a seed means the same weights on every
device. Under `with torch.device("meta"):` they have shapes only, which is how large networks are counted for nothing.

References:
    torch.nn.Linear.reset_parameters. https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

__all__ = ["convolution", "drawn", "embedding", "group_norm", "linear", "silent", "weights_device"]

L = TypeVar("L", nn.Linear, nn.Conv2d)


def weights_device() -> str:
    """Where new weights are made: the CPU, or "meta" under `with torch.device("meta"):`."""
    return "meta" if torch.get_default_device().type == "meta" else "cpu"


def linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer drawn from `generator` as PyTorch draws it from its global one."""
    return drawn(nn.Linear(inputs, outputs, device="meta"), generator)


def convolution(inputs: int, outputs: int, generator: torch.Generator, *, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution of odd kernel `size`, padded by size // 2, drawn as PyTorch draws it."""
    return drawn(nn.Conv2d(inputs, outputs, size, stride, size // 2, device="meta"), generator)


def embedding(rows: int, width: int, generator: torch.Generator, *, std: float = 1.0) -> nn.Embedding:
    """An embedding with N(0, std²) entries; std 1 is PyTorch's own rule."""
    layer = nn.Embedding(rows, width, device="meta").to_empty(device=weights_device())
    nn.init.normal_(layer.weight, std=std, generator=generator)
    return layer


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation by 32 groups, or by as many as divide the channels into groups of at least four."""
    largest = min(32, max(1, channels // 4))
    groups = next(n for n in range(largest, 0, -1) if channels % n == 0)
    return nn.GroupNorm(groups, channels, device=weights_device())


def silent(layer: L) -> L:
    """The layer with zero weights and bias, so that at first the branch it ends adds nothing."""
    nn.init.zeros_(layer.weight)
    if isinstance(layer.bias, Tensor):
        nn.init.zeros_(layer.bias)
    return layer


def drawn(layer: L, generator: torch.Generator) -> L:
    """A layer made on "meta", with memory and with U(±1/√fan-in) weights and biases from `generator`."""
    layer = layer.to_empty(device=weights_device())
    bound = 1 / math.sqrt(layer.weight[0].numel())
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    if isinstance(layer.bias, Tensor):
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer
