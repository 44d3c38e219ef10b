"""Diffusion transformer with adaLN-Zero: patches of an image as tokens, every block modulated by time and condition.

    e = silu(τ(t) + class + vector),   τ(t) = W_2·silu(W_1·s(t)),   s(t) 256 sinusoids of 1000·t (`time_embedding`)
    z = patches of x_t, each through one linear map, + position
    z ← z + g_1 · attention(norm(z)·(1 + s_1) + b_1)
    z ← z + g_2 · mlp(norm(z)·(1 + s_2) + b_2),      (b_1, s_1, g_1, b_2, s_2, g_2) = A·e, A = 0 at first
    f = patches back to an image, W·(norm(z)·(1 + s) + b),   (b, s) = A'·e, W and A' = 0 at first

At first every gate g is 0, so every block is the identity, and the output is 0. Positions are fixed sines and cosines
of the column (first half) and the row (second half): `(sin ω_i·p, cos ω_i·p)`, `ω_i = 10000^(−i/(width/4))`.

References:
    Peebles & Xie 2023, DiT, section 3. https://arxiv.org/abs/2212.09748
    Dosovitskiy et al. 2021, ViT. https://arxiv.org/abs/2010.11929
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fm_core.errors import ShapeError
from fm_core.randomness import make_generator
from fm_plugins.networks.attention import attend
from fm_plugins.networks.conditions import Conditions
from fm_plugins.networks.encoder import image_shape
from fm_plugins.networks.seeded import linear, silent, weights_device
from fm_plugins.networks.stages import recomputed
from fm_plugins.networks.time_embedding import TimeEmbedding

__all__ = ["DiT"]

SINUSOIDS = 256
"""Sines and cosines of time."""

STD = 0.02
"""Standard deviation of the first embeddings of time and classes."""


@final
class DiT(nn.Module):
    """Diffusion transformer.

    >>> net = DiT((1, 8, 8), patch=2, width=32, depth=2, heads=4, classes=10, seed=0)
    >>> net(torch.zeros(5, 1, 8, 8), torch.linspace(0, 1, 5), torch.arange(5)).shape
    torch.Size([5, 1, 8, 8])

    Args:
        shape: Event shape (C, H, W), sides multiples of `patch`.
        patch: Side of a patch.
        width: Length of a token, a multiple of 4 and of `heads`.
        depth: Number of blocks.
        heads: Attention heads.
        mlp_ratio: Hidden units of a block's MLP, as a multiple of `width`.
        classes: Number of classes K, for labels `(B,)` in 0 … K. K itself is "no class", so the model is
            `fm.Model(net, predicts=…, null=K)`.
        cond_dim: Length of condition vectors `(B, cond_dim)`.
        out_channels: Channels of the output; those of the state by default. The published networks have twice as many,
            the second half for the variance.
        checkpoint: Compute the blocks again in the backward pass instead of keeping their values.
        seed: Seed of the weights, drawn on the CPU from a generator of their own; None draws from fresh entropy.

    Raises:
        ValueError: For sizes that do not fit.
    """

    position: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        *,
        patch: int = 2,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        mlp_ratio: float = 4.0,
        classes: int | None = None,
        cond_dim: int | None = None,
        out_channels: int | None = None,
        checkpoint: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.shape = image_shape(shape, "a DiT")
        self.patch, self.checkpoint = patch, checkpoint
        self._check(width=width, depth=depth, heads=heads)
        generator, inside = make_generator(seed), self.shape[0] * patch**2
        self.out_channels = out_channels or self.shape[0]
        self.enter = _dense(inside, width, generator)
        self.embed_time = TimeEmbedding(SINUSOIDS, width, generator)
        for layer in (self.embed_time.enter, self.embed_time.leave):
            nn.init.normal_(layer.weight, std=STD, generator=generator)
            nn.init.zeros_(layer.bias)
        self.embed_cond = Conditions(width, generator, classes=classes, cond_dim=cond_dim, std=STD)
        self.blocks = nn.ModuleList(_Block(width, heads, int(width * mlp_ratio), generator) for _ in range(depth))
        self.norm = _norm(width)
        self.modulate = silent(linear(width, 2 * width, generator))
        self.leave = silent(linear(width, self.out_channels * patch**2, generator))
        self.register_buffer("position", self._positions(width), persistent=False)

    def forward(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """The network's output at states x_t `(B, C, H, W)`, times t `(B,)` and conditions.

        Args:
            x_t: States, shape `(B, C, H, W)`.
            t: Times in [0, 1], shape `(B,)`, float32 or float64.
            cond: Labels `(B,)` or vectors `(B, cond_dim)`; a dict of both by the names "class" and "vector".

        Returns:
            Shape `(B, out_channels, H, W)`.

        Raises:
            ShapeError: For states or conditions of another shape.
            ConditionError: For a condition that is missing, unexpected or out of range.
        """
        if x_t.shape[1:] != self.shape:
            raise ShapeError(
                f"this DiT takes states (B, {', '.join(map(str, self.shape))}); got {tuple(x_t.shape)}; "
                f"build it with shape={tuple(x_t.shape[1:])} for these"
            )
        embedded, _, _ = self.embed_cond(self.embed_time(t, x_t.dtype), cond)
        z = self.enter(self._patches(x_t)) + self.position.to(x_t.dtype)
        for block in self.blocks:
            if self.checkpoint and torch.is_grad_enabled():
                z = recomputed(block, z, embedded, random=False)
            else:
                z = block(z, embedded)
        shift, scale = self.modulate(embedded).unsqueeze(1).chunk(2, -1)
        return self._image(self.leave(_modulated(self.norm(z), shift, scale)))

    def _patches(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, H/p · W/p, C·p²)`, a patch's values in the order (C, p, p)."""
        channels, height, width = self.shape
        p = self.patch
        x = x.reshape(x.shape[0], channels, height // p, p, width // p, p)
        return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)

    def _image(self, z: Tensor) -> Tensor:
        """`(B, H/p · W/p, p²·C)` to `(B, C, H, W)`, a patch's values in the published order (p, p, C)."""
        _, height, width = self.shape
        p = self.patch
        z = z.reshape(z.shape[0], height // p, width // p, p, p, self.out_channels)
        return z.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)

    def _positions(self, width: int) -> Tensor:
        """The fixed embedding of positions, `(H/p · W/p, width)`."""
        device, quarter = weights_device(), width // 4
        rows, columns = (
            torch.arange(side // self.patch, dtype=torch.float64, device=device) for side in self.shape[1:]
        )
        i = torch.arange(quarter, dtype=torch.float64, device=device)
        omega = torch.exp(-math.log(10_000) / quarter * i)
        row, column = torch.meshgrid(rows, columns, indexing="ij")
        angles = [place.flatten().unsqueeze(1) * omega for place in (column, row)]
        return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], 1).float()

    def _check(self, *, width: int, depth: int, heads: int) -> None:
        for name, value in {"patch": self.patch, "width": width, "depth": depth, "heads": heads}.items():
            if value < 1:
                raise ValueError(f"{name} is at least 1; got {value}")
        if width % 4 or width % heads:
            raise ValueError(f"width is a multiple of 4 (positions) and of heads = {heads}; got {width}")
        if any(side % self.patch for side in self.shape[1:]):
            raise ValueError(
                f"patches of {self.patch} × {self.patch} do not tile images of {self.shape[1]} × {self.shape[2]}; "
                "give another patch, or pad the images"
            )


class _Block(nn.Module):
    """A transformer block with adaLN-Zero, tokens `(B, N, width)` to the same."""

    def __init__(self, width: int, heads: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = _norm(width), _norm(width)
        self.qkv = _dense(width, 3 * width, generator)
        self.mix = _dense(width, width, generator)
        self.widen = _dense(width, hidden, generator)
        self.narrow = _dense(hidden, width, generator)
        self.modulate = silent(linear(width, 6 * width, generator))

    def forward(self, z: Tensor, embedded: Tensor) -> Tensor:
        modulation = self.modulate(embedded).unsqueeze(1).chunk(6, -1)
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation
        q, k, v = self.qkv(_modulated(self.norm1(z), shift1, scale1)).chunk(3, -1)
        z = z + gate1 * self.mix(attend(q, k, v, self.heads))
        h = self.widen(_modulated(self.norm2(z), shift2, scale2))
        return z + gate2 * self.narrow(F.gelu(h, approximate="tanh"))  # type: ignore[no-any-return]


def _modulated(z: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return z * (1 + scale) + shift


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


def _dense(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer as transformers start: Glorot's uniform weights, no bias."""
    layer = linear(inputs, outputs, generator)
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
