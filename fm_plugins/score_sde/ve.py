"""The variance-exploding path, `α = 1`, σ falling geometrically from `sigma_max` to `sigma_min`."""

from __future__ import annotations

import math

import torch
from attrs import field, frozen, validators
from torch import Tensor

from fm_core import GaussianPath

__all__ = ["VE", "ve"]


@frozen
class VE:
    """Schedule of the variance-exploding SDE.

    α = 1, σ = σ_max·(σ_min/σ_max)^t, α' = 0, σ' = −σ·log(σ_max/σ_min); the log-SNR is −2·log σ, linear in t. The noise
    σ_min that is left at t = 1 is taken away by the data prediction (Tweedie's formula), as published samplers do.

    Args:
        sigma_min: Noise level at t = 1, small beside the data.
        sigma_max: Noise level at t = 0, large beside the data: about the largest distance between two samples.

    References:
        Song et al. 2021, equation 31. https://arxiv.org/abs/2011.13456
        Song & Ermon 2020, Technique 1 (σ_max). https://arxiv.org/abs/2006.09011
    """

    sigma_min: float = field(default=0.01, validator=validators.gt(0.0))
    sigma_max: float = field(default=50.0)

    closing = True

    @sigma_max.validator
    def _above_sigma_min(self, _: object, value: float) -> None:
        if not value > self.sigma_min:
            raise ValueError(f"sigma_max must be above sigma_min = {self.sigma_min}: noise falls; got {value}")

    def alpha(self, t: Tensor) -> Tensor:
        """α = 1."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """σ = σ_max·(σ_min/σ_max)^t."""
        return self.sigma_max * torch.exp(-self._rate * t)

    def d_alpha(self, t: Tensor) -> Tensor:
        """α' = 0."""
        return torch.zeros_like(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        """σ' = −σ·log(σ_max/σ_min)."""
        return -self._rate * self.sigma(t)

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """Inverse of `log_snr = −2·log σ`, clipped to [0, 1]."""
        return ((log_snr / 2 + math.log(self.sigma_max)) / self._rate).clamp(0, 1)

    @property
    def _rate(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)


def ve(sigma_min: float = 0.01, sigma_max: float = 50.0) -> GaussianPath:
    """The variance-exploding path from normal noise of standard deviation `sigma_max`.

    Args:
        sigma_min: Noise level at t = 1, in units of the data.
        sigma_max: Noise level at t = 0.

    >>> path = ve(sigma_min=0.01, sigma_max=100.0)
    >>> path.sigma(torch.tensor([0.0, 0.5, 1.0]))
    tensor([1.0000e+02, 1.0000e+00, 1.0000e-02])
    """
    return GaussianPath(VE(sigma_min, sigma_max))
