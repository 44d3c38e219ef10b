"""Four concentric circles, equally likely.

    x = scale·r·(cos θ, sin θ) + noise·z,   r ∈ {¼, ½, ¾, 1},   θ ~ U[0, 2π),   z ~ N(0, I)

References:
    Grathwohl et al. 2019, FFJORD, lib/toy_data.py, "rings", there with equally spaced θ. https://github.com/rtqichen/ffjord
"""

from __future__ import annotations

import math
from typing import final

import torch
from attrs import field, frozen, validators
from torch import Tensor

from fm_core.randomness import make_generator

__all__ = ["Rings"]


@final
@frozen
class Rings:
    """Concentric circles at equal distances, equally likely whatever their length.

    >>> from fm_core.randomness import make_generator
    >>> Rings()(3, make_generator(0)).shape
    torch.Size([3, 2])

    Args:
        rings: Number of circles.
        scale: Radius of the outermost circle.
        noise: Standard deviation of the noise around the circles, not scaled.
    """

    rings: int = field(default=4, validator=validators.ge(1))
    scale: float = field(default=3.0, validator=validators.gt(0))
    noise: float = field(default=0.08, validator=validators.ge(0))

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws `n` independent samples, shape `(n, 2)`, float32."""
        g = generator or make_generator()
        ring = torch.randint(1, self.rings + 1, (n,), generator=g, device=g.device)
        theta = 2 * math.pi * torch.rand(n, generator=g, device=g.device, dtype=torch.float32)
        radius = ring.float() * (self.scale / self.rings)
        circles = radius[:, None] * torch.stack([theta.cos(), theta.sin()], dim=-1)
        return circles + self.noise * torch.randn(n, 2, generator=g, device=g.device, dtype=torch.float32)
