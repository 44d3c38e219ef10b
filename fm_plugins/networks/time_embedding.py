"""Sinusoidal embedding of time: DDPM's, whose index runs to 1000 where t runs to 1.

    s(t) = (sin 1000ω_0·t, …, sin 1000ω_{h−1}·t, cos 1000ω_0·t, …, cos 1000ω_{h−1}·t),    ω_i = 10000^(−i/h)

t is this library's time: it rises to the data, where DDPM's index falls.

References:
    Vaswani et al. 2017, section 3.5. https://arxiv.org/abs/1706.03762
    Ho et al. 2020, DDPM, appendix B. https://arxiv.org/abs/2006.11239
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fm_plugins.networks.seeded import linear

__all__ = ["TimeEmbedding", "sinusoids"]


def sinusoids(t: Tensor, size: int) -> Tensor:
    """The embedding s(t) of times `(B,)`, shape `(B, size)`, in t's own precision.

    Frequencies are made here rather than kept: as a buffer, `.to(bfloat16)` would round them, and 1000·t needs more
    than bfloat16, which cannot tell 999/1000 from 1.

    >>> sinusoids(torch.tensor([0.0]), 4)
    tensor([[0., 0., 1., 1.]])

    Args:
        t: Times, shape `(B,)`, float32 or float64.
        size: Even number of features.
    """
    half = size // 2
    i = torch.arange(half, dtype=t.dtype, device=t.device)
    angles = t.unsqueeze(1) * (1000 * torch.exp(-math.log(10_000) / half * i))
    return torch.cat([angles.sin(), angles.cos()], 1)


class TimeEmbedding(nn.Module):
    """Sines and cosines of time through two layers: `W_2·silu(W_1·s(t))`.

    Args:
        features: Number of sines and cosines, even.
        width: Length of the embedding.
        generator: Draws the weights.
    """

    def __init__(self, features: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.enter = linear(features, width, generator)
        self.leave = linear(width, width, generator)

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        """The embedding of times `(B,)` in `dtype`, shape `(B, width)`."""
        return self.leave(F.silu(self.enter(sinusoids(t, self.enter.in_features).to(dtype))))  # type: ignore[no-any-return]
