"""Two interleaved half circles: scikit-learn's `make_moons`, scaled and shifted.

    outer (cos θ, sin θ),   inner (1 − cos θ, ½ − sin θ),   θ ∈ [0, π]
    x = scale·(point + noise·z) + shift,   z ~ N(0, I)

`make_moons(n)` does not draw θ: it lays ⌊n/2⌋ and ⌈n/2⌉ equally spaced angles on the two moons, the same ones in every
call. The runner calls it once, for its whole data set, and draws batches from that at random, so the law of a sample is
θ ~ U[0, π], the moons equally likely: that is drawn here, independently, for any n. A call of `make_moons` per batch
would be another law (n = 1 is always the point (0, ½); batches of 16 know 8 angles a moon), and its W2 between two
draws (n = 1000: .07) is one that no sampler of independent points can reach (.19). `stratified=True` gives that grid.

The runner subtracts 1 from the first coordinate only; both coordinates, the default, is its mirror image in the
origin, since the moons are symmetric about their centre: every figure against a source symmetric about the origin is
the same.

References:
    scikit-learn, make_moons. https://scikit-learn.org/stable/modules/generated/sklearn.datasets.make_moons.html
    Runner, SKLearnDataModule. https://github.com/atong01/conditional-flow-matching/blob/main/runner/src/datamodules/distribution_datamodule.py
"""

from __future__ import annotations

import math
from typing import final

import torch
from attrs import field, frozen, validators
from torch import Tensor

from fm_core.randomness import make_generator

__all__ = ["Moons"]


@final
@frozen
class Moons:
    """Two moons, by default `make_moons(noise=.05)·2 − 1`.

    >>> from fm_core.randomness import make_generator
    >>> Moons()(3, make_generator(0)).shape
    torch.Size([3, 2])

    Args:
        noise: Standard deviation of the noise around the half circles of radius 1, before scaling.
        scale: Factor on both coordinates.
        shift: Added after scaling, per coordinate; the runner's code has `(-1, 0)`, FFJORD `(-1, -.2)` with noise .1.
        stratified: Lay angles on scikit-learn's grid instead of drawing them: samples of a draw are then not
            independent.
    """

    noise: float = field(default=0.05, validator=validators.ge(0))
    scale: float = field(default=2.0, validator=validators.gt(0))
    shift: tuple[float, float] = (-1.0, -1.0)
    stratified: bool = False

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws `n` samples, shape `(n, 2)`, float32."""
        g = generator or make_generator()
        theta, outer = _grid(n, g) if self.stratified else _independent(n, g)
        cos, sin = theta.cos(), theta.sin()
        points = torch.stack([torch.where(outer, cos, 1 - cos), torch.where(outer, sin, 0.5 - sin)], dim=-1)
        noise = torch.randn(n, 2, generator=g, device=g.device, dtype=torch.float32)
        shift = torch.tensor(self.shift, device=g.device, dtype=torch.float32)
        return self.scale * (points + self.noise * noise) + shift


def _independent(n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Angles `(n,)`, uniform in [0, π), and which points lie on the outer moon, `(n,)`, a fair coin each."""
    theta = math.pi * torch.rand(n, generator=g, device=g.device, dtype=torch.float32)
    return theta, torch.randint(2, (n,), generator=g, device=g.device) == 0


def _grid(n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """The angles and moons of `make_moons(n)`, shuffled."""
    outer = n // 2
    grids = [torch.linspace(0, math.pi, k, device=g.device, dtype=torch.float32) for k in (outer, n - outer)]
    order = torch.randperm(n, generator=g, device=g.device)
    return torch.cat(grids)[order], order < outer
