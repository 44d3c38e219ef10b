"""The linear path, `α = t`, `σ = 1 − (1 − σ_min)·t`: straight lines from noise to data at constant speed."""

from __future__ import annotations

import torch
from attrs import field, frozen, validators
from torch import Tensor

from fm_core import GaussianPath

__all__ = ["Linear", "linear"]


@frozen
class Linear:
    """Schedule of the conditional optimal-transport path.

    α = t, σ = 1 − (1 − σ_min)·t, so α' = 1, σ' = −(1 − σ_min); with r = α/σ = exp(log_snr/2), t = 1/(1/r + 1 − σ_min).

    Args:
        sigma_min: Noise left at t = 1.

    References:
        Lipman et al. 2023, equation 20. https://arxiv.org/abs/2210.02747
    """

    sigma_min: float = field(default=0.0, validator=[validators.ge(0.0), validators.lt(1.0)])

    def alpha(self, t: Tensor) -> Tensor:
        """α = t."""
        return t

    def sigma(self, t: Tensor) -> Tensor:
        """σ = 1 − (1 − σ_min)·t."""
        return 1 - (1 - self.sigma_min) * t

    def d_alpha(self, t: Tensor) -> Tensor:
        """α' = 1."""
        return torch.ones_like(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        """σ' = −(1 − σ_min)."""
        return torch.full_like(t, self.sigma_min - 1)

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """Inverse of `log_snr = 2·log(α/σ)`, clipped to [0, 1]."""
        return (1 / (torch.exp(-log_snr / 2) + (1 - self.sigma_min))).clamp(max=1.0)


def linear(sigma_min: float = 0.0) -> GaussianPath:
    """The linear path from standard normal noise.

    Args:
        sigma_min: Noise left at t = 1, in units of the source's standard deviation.

    >>> path = linear()
    >>> path.interpolate(torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([0.25])).x_t
    tensor([[0.2500, 0.2500]])
    """
    return GaussianPath(Linear(sigma_min))
