"""Attention over the places of a map, or from them to a sequence, as a residual branch that starts at zero.

    x + W_o·[softmax(q_h·k_hᵀ/√d)·v_h]_h,    q = W_q·y,   (k, v) = W_kv·z,   y = norm(x)

    self-attention     z = y, the H·W places themselves
    cross-attention    z = the context (B, L, context_dim), masked

References:
    Vaswani et al. 2017. https://arxiv.org/abs/1706.03762
    Ho et al. 2020, appendix B (in the U-Net). https://arxiv.org/abs/2006.11239
    Rombach et al. 2022, section 3.3 (cross-attention). https://arxiv.org/abs/2112.10752
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fm_plugins.networks.seeded import group_norm, linear, silent

__all__ = ["Attention", "attend"]


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Attention of queries `(B, N, C)` to keys and values `(B, M, C)` by several heads, shape `(B, N, C)`.

    Args:
        q, k, v: Projected already; C is a multiple of `heads`.
        heads: Number of heads.
        mask: True where a key counts, `(B, 1, 1, M)`. Where none does, the answer is 0.
    """
    q, k, v = (part.reshape(*part.shape[:2], heads, -1).transpose(1, 2) for part in (q, k, v))
    if mask is None:
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    # A softmax over nothing is NaN on some devices: such a row attends to all, and its answer is set to 0.
    some = mask.any(-1, keepdim=True)
    answer = F.scaled_dot_product_attention(q, k, v, attn_mask=mask | ~some)
    return torch.where(some, answer, 0.0).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Self-attention of a map, or its cross-attention to a sequence.

    Args:
        channels: Of the map.
        heads: Number of heads, a divisor of the channels.
        generator: Draws the weights.
        context_dim: Length of the sequence's elements; None for self-attention.
    """

    def __init__(
        self, channels: int, heads: int, generator: torch.Generator, *, context_dim: int | None = None
    ) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"heads divide the channels of every map with attention; got {heads} for {channels}")
        self.heads = heads
        self.norm = group_norm(channels)
        self.q = linear(channels, channels, generator)
        self.kv = linear(context_dim or channels, 2 * channels, generator)
        self.leave = silent(linear(channels, channels, generator))

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """The map `(B, C, H, W)` with its attention added.

        Args:
            x: Map.
            context: Sequence `(B, L, context_dim)` to attend to; None for the map's own places.
            mask: True where an element of it counts, `(B, 1, 1, L)`.
        """
        places = self.norm(x).flatten(2).transpose(1, 2)
        k, v = self.kv(places if context is None else context).chunk(2, -1)
        answer = self.leave(attend(self.q(places), k, v, self.heads, mask))
        return x + answer.transpose(1, 2).reshape(x.shape)  # type: ignore[no-any-return]
