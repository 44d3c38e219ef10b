"""A data set: a noisy spiral of Archimedes in the plane.

θ = turns·2π·√u,   u ~ U[0, 1),   x = radius·√u·(cos θ, sin θ) + noise·z,   z ~ N(0, I)

The radius grows with the angle, and √u spreads the points evenly over the disc.
"""

from __future__ import annotations

import math
from typing import final

import torch
from attrs import field as attribute, frozen, validators
from fm_core.randomness import make_generator
from torch import Tensor

__all__ = ["Spiral"]


@final
@frozen
class Spiral:
    """Independent samples, as many as are asked for.

    Args:
        radius: Distance of the outer end from the origin.
        turns: Number of windings.
        noise: Standard deviation around the spiral.
    """

    radius: float = attribute(default=3.0, validator=validators.gt(0))
    turns: float = attribute(default=1.5, validator=validators.gt(0))
    noise: float = attribute(default=0.1, validator=validators.ge(0))

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws `n` samples, shape `(n, 2)`, float32, on the generator's device."""
        g = generator or make_generator()
        root = torch.rand(n, generator=g, device=g.device, dtype=torch.float32).sqrt()
        angle = (2 * math.pi * self.turns) * root
        noise = torch.randn(n, 2, generator=g, device=g.device, dtype=torch.float32)
        return self.radius * root[:, None] * torch.stack([angle.cos(), angle.sin()], -1) + self.noise * noise
