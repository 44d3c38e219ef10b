"""The pair of moons → 8gaussians: both ends are data, so the source is no Gaussian.

    source: 7·(m − μ)/s, m ~ make_moons(noise=.1), μ and s the mean and std of all its coordinates together
    target: eight Gaussians, (radius 4, std .5)·3

The runner standardises each sample of moons by its own μ and s. Here they are those of the law, so that samples
stream; with x and y the coordinates, E x = ½, E x² = 1, E y = ¼, E y² = ⅝ − 1/π, each plus noise², hence

    μ = 3/8,    s² = (1 + ⅝ − 1/π)/2 + noise² − μ²

References:
    Runner, two_dim.py. https://github.com/atong01/conditional-flow-matching/blob/main/runner/src/datamodules/components/two_dim.py
    De Bortoli et al. 2021, Diffusion Schrödinger Bridge, its origin. https://arxiv.org/abs/2106.01357
"""

from __future__ import annotations

import math

from fm_plugins.toy_data.eight_gaussians import EightGaussians
from fm_plugins.toy_data.moons import Moons

__all__ = ["standardised_moons", "wide_eight_gaussians"]


def standardised_moons(noise: float = 0.1, scale: float = 7.0) -> Moons:
    """Moons whose coordinates, taken together, have mean 0 and standard deviation `scale`.

    Args:
        noise: Standard deviation of the noise around half circles of radius 1, before standardising.
        scale: Standard deviation of all coordinates together.
    """
    mean = 3 / 8
    std = math.sqrt((1 + 5 / 8 - 1 / math.pi) / 2 + noise**2 - mean**2)
    factor = scale / std
    return Moons(noise=noise, scale=factor, shift=(-mean * factor, -mean * factor))


def wide_eight_gaussians() -> EightGaussians:
    """Eight Gaussians of radius 12 and std 1.5."""
    return EightGaussians(radius=12.0, std=1.5)
