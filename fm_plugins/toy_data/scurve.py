"""An S in the plane: dimensions 0 and 2 of scikit-learn's `make_s_curve`, scaled.

    θ ~ U[−3π/2, 3π/2],   x = scale·((sin θ, sign θ·(cos θ − 1)) + noise·z),   z ~ N(0, I)

References:
    scikit-learn, make_s_curve. https://scikit-learn.org/stable/modules/generated/sklearn.datasets.make_s_curve.html
    Runner, SKLearnDataModule. https://github.com/atong01/conditional-flow-matching/blob/main/runner/src/datamodules/distribution_datamodule.py
"""

from __future__ import annotations

import math
from typing import final

import torch
from attrs import field, frozen, validators
from torch import Tensor

from fm_core.randomness import make_generator

__all__ = ["SCurve"]


@final
@frozen
class SCurve:
    """An S-shaped curve, by default `make_s_curve(noise=.05)[:, [0, 2]]·1.5`.

    >>> from fm_core.randomness import make_generator
    >>> SCurve()(3, make_generator(0)).shape
    torch.Size([3, 2])

    Args:
        noise: Standard deviation of the noise around the curve, before scaling.
        scale: Factor on both coordinates.
    """

    noise: float = field(default=0.05, validator=validators.ge(0))
    scale: float = field(default=1.5, validator=validators.gt(0))

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws `n` independent samples, shape `(n, 2)`, float32."""
        g = generator or make_generator()
        theta = 3 * math.pi * (torch.rand(n, generator=g, device=g.device, dtype=torch.float32) - 0.5)
        curve = torch.stack([theta.sin(), theta.sign() * (theta.cos() - 1)], dim=-1)
        noise = torch.randn(n, 2, generator=g, device=g.device, dtype=torch.float32)
        return self.scale * (curve + self.noise * noise)
