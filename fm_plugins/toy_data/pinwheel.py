"""Five Gaussian arms, bent more the further out.

    (ρ, τ) ~ N((1, 0), diag(s_r², s_t²)),   φ = 2πk/arms + rate·e^ρ,   x = scale·(ρ·cos φ + τ·sin φ, −ρ·sin φ + τ·cos φ)

References:
    Johnson et al. 2016, Structured VAEs, where it comes from. https://arxiv.org/abs/1603.06277
    Grathwohl et al. 2019, FFJORD, lib/toy_data.py (scale 2). https://github.com/rtqichen/ffjord
"""

from __future__ import annotations

import math
from typing import final

import torch
from attrs import field, frozen, validators
from torch import Tensor

from fm_core.randomness import make_generator

__all__ = ["Pinwheel"]


@final
@frozen
class Pinwheel:
    """A pinwheel of bent arms, equally likely.

    >>> from fm_core.randomness import make_generator
    >>> Pinwheel()(3, make_generator(0)).shape
    torch.Size([3, 2])

    Args:
        arms: Number of arms.
        radial_std: Standard deviation along an arm, before scaling.
        tangential_std: Standard deviation across an arm, before scaling.
        rate: How strongly the arms are bent, in radians.
        scale: Factor on both coordinates.
    """

    arms: int = field(default=5, validator=validators.ge(1))
    radial_std: float = field(default=0.3, validator=validators.ge(0))
    tangential_std: float = field(default=0.1, validator=validators.ge(0))
    rate: float = 0.25
    scale: float = field(default=2.0, validator=validators.gt(0))

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws `n` independent samples, shape `(n, 2)`, float32."""
        g = generator or make_generator()
        arm = torch.randint(self.arms, (n,), generator=g, device=g.device)
        z = torch.randn(n, 2, generator=g, device=g.device, dtype=torch.float32)
        radial, tangential = 1 + self.radial_std * z[:, 0], self.tangential_std * z[:, 1]
        angle = arm.float() * (2 * math.pi / self.arms) + self.rate * radial.exp()
        cos, sin = angle.cos(), angle.sin()
        return self.scale * torch.stack([radial * cos + tangential * sin, tangential * cos - radial * sin], dim=-1)
