"""Uniform on eight of the sixteen squares of a board: a density with sharp edges and holes.

    x ~ U[−2, 2),   y = U[0, 1) − 2·B + (⌊x⌋ mod 2),   B ~ Bernoulli(½);    scaled by `scale`

So a unit square with lower-left corner (i, j), i, j ∈ {−2, …, 1}, is filled where i + j is even.

References:
    Grathwohl et al. 2019, FFJORD, lib/toy_data.py (scale 2). https://github.com/rtqichen/ffjord
    De Bortoli et al. 2021, Diffusion Schrödinger Bridge (scale 7.5). https://arxiv.org/abs/2106.01357
"""

from __future__ import annotations

from typing import final

import torch
from attrs import field, frozen, validators
from torch import Tensor

from fm_core.randomness import make_generator

__all__ = ["Checkerboard"]


@final
@frozen
class Checkerboard:
    """A 4 × 4 board of alternating squares, uniform on the filled ones.

    >>> from fm_core.randomness import make_generator
    >>> Checkerboard()(3, make_generator(0)).shape
    torch.Size([3, 2])

    Args:
        scale: Side of a square; the board is `[−2·scale, 2·scale)²`.
    """

    scale: float = field(default=2.0, validator=validators.gt(0))

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws `n` independent samples, shape `(n, 2)`, float32."""
        g = generator or make_generator()
        column = torch.randint(-2, 2, (n,), generator=g, device=g.device)
        row = 2 * torch.randint(-1, 1, (n,), generator=g, device=g.device) + column % 2
        within = torch.rand(n, 2, generator=g, device=g.device, dtype=torch.float32)
        return self.scale * (torch.stack([column, row], dim=-1) + within)
