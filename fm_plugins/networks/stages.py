"""What U-Nets are made of: residual blocks modulated by an embedding, attention after them, and changes of resolution.

    h = W_1 * silu(norm(x))
    h = norm(h)·(1 + s) + b,  (s, b) = A·e        FiLM ("scale-shift"): e = silu(embedding of time and condition)
    h = norm(h + A·e)                             DDPM's own, film=False
    x ← S·x + W_2 * dropout(silu(h))              S = 1 where the channels stay; W_2 starts at zero

References:
    Ho et al. 2020, appendix B. https://arxiv.org/abs/2006.11239
    Dhariwal & Nichol 2021, section 3 (adaptive group normalisation). https://arxiv.org/abs/2105.05233
    Perez et al. 2018, FiLM. https://arxiv.org/abs/1709.07871
"""

from __future__ import annotations

from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fm_plugins.networks.attention import Attention
from fm_plugins.networks.seeded import convolution, group_norm, linear, silent

__all__ = ["Grow", "Plan", "Residual", "Shrink", "Stage", "recomputed"]


@frozen
class Plan:
    """What all stages of a network share.

    Args:
        embedding: Length of the embedding they are modulated by.
        heads: Attention heads.
        dropout: Probability of dropping a value before a residual branch's last convolution.
        film: Scale and shift after the second normalisation; False adds before it.
        context_dim: Length of the elements of a sequence to attend to, or None.
        attention: Whether a stage attends.
    """

    embedding: int
    heads: int = 1
    dropout: float = 0.0
    film: bool = True
    context_dim: int | None = None
    attention: bool = False

    def attending(self, attention: bool) -> Plan:
        """This plan, for stages that attend or do not."""
        return evolve(self, attention=attention)


def recomputed(module: nn.Module, *inputs: Any, random: bool) -> Any:
    """The module's output, whose intermediate values are not kept but computed again in the backward pass.

    Args:
        module: Called with the inputs.
        inputs: Tensors or None.
        random: Whether it draws (dropout), and must draw the same again.
    """
    return checkpoint(module, *inputs, use_reentrant=False, preserve_rng_state=random)


class Residual(nn.Module):
    """A residual block, `(B, inputs, H, W)` to `(B, outputs, H, W)`.

    Args:
        inputs, outputs: Channels.
        plan: What it shares with the others.
        generator: Draws the weights.
    """

    def __init__(self, inputs: int, outputs: int, plan: Plan, generator: torch.Generator) -> None:
        super().__init__()
        self.film = plan.film
        self.norm1 = group_norm(inputs)
        self.conv1 = convolution(inputs, outputs, generator)
        self.modulate = linear(plan.embedding, 2 * outputs if plan.film else outputs, generator)
        self.norm2 = group_norm(outputs)
        self.dropout = nn.Dropout(plan.dropout)
        self.conv2 = silent(convolution(outputs, outputs, generator))
        self.skip = nn.Identity() if inputs == outputs else convolution(inputs, outputs, generator, size=1)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """The block's output at a map and the embeddings `(B, embedding)`."""
        h = self.conv1(F.silu(self.norm1(x)))
        modulation = self.modulate(embedded)[:, :, None, None]
        if self.film:
            scale, shift = modulation.chunk(2, 1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + modulation)
        return self.skip(x) + self.conv2(self.dropout(F.silu(h)))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """A residual block, then self-attention and cross-attention where the plan says so.

    Args:
        inputs, outputs: Channels.
        plan: What it shares with the others.
        generator: Draws the weights.
    """

    def __init__(self, inputs: int, outputs: int, plan: Plan, generator: torch.Generator) -> None:
        super().__init__()
        self.residual = Residual(inputs, outputs, plan, generator)
        self.attention = Attention(outputs, plan.heads, generator) if plan.attention else None
        self.cross = (
            Attention(outputs, plan.heads, generator, context_dim=plan.context_dim)
            if plan.attention and plan.context_dim
            else None
        )

    def forward(self, x: Tensor, embedded: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """The stage's output, `(B, outputs, H, W)`."""
        x = self.residual(x, embedded)
        if self.attention is not None:
            x = self.attention(x)
        if self.cross is not None:
            x = self.cross(x, context, mask)
        return x


class Shrink(nn.Module):
    """A map of half the sides, rounded up: a convolution of stride 2."""

    def __init__(self, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.conv = convolution(channels, channels, generator, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, C, ⌈H/2⌉, ⌈W/2⌉)`."""
        return self.conv(x)  # type: ignore[no-any-return]


class Grow(nn.Module):
    """A map of twice the sides, or one less where shrinking had rounded up: nearest neighbours, then a convolution."""

    def __init__(self, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.conv = convolution(channels, channels, generator)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """`(B, C, ⌈H/2⌉, ⌈W/2⌉)` to `(B, C, H, W)`, `size` = (H, W)."""
        doubled = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.conv(doubled[:, :, : size[0], : size[1]])  # type: ignore[no-any-return]
