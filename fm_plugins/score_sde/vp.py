"""The variance-preserving path with β linear in time, `α = exp(−½∫β)`, `σ² = 1 − α²`."""

from __future__ import annotations

import torch
from attrs import field, frozen, validators
from torch import Tensor

from fm_core import GaussianPath

__all__ = ["VP", "vp"]


@frozen
class VP:
    """Schedule of the variance-preserving SDE.

    With s = 1 − t and β = β_min + s·(β_max − β_min), `B(s) = ∫₀ˢ β = β_min·s + ½(β_max − β_min)·s²`:

        α = e^{−B/2},  σ = √(1 − e^{−B}),  α' = ½β·α,  σ' = −½β·α²/σ,  log-SNR = −log(e^B − 1).

    σ' is −∞ at t = 1. From a log-SNR λ, `B = log(1 + e^{−λ})`, and s is the positive root of the quadratic.

    Args:
        beta_min: β at the data, per unit of time.
        beta_max: β at the noise.

    References:
        Song et al. 2021, equations 32 and 33. https://arxiv.org/abs/2011.13456
    """

    beta_min: float = field(default=0.1, validator=validators.gt(0.0))
    beta_max: float = field(default=20.0, validator=validators.gt(0.0))

    def alpha(self, t: Tensor) -> Tensor:
        """α = e^{−B/2}."""
        return torch.exp(self._integral(t) / -2)

    def sigma(self, t: Tensor) -> Tensor:
        """σ = √(1 − e^{−B})."""
        return (-torch.expm1(-self._integral(t))).sqrt()

    def d_alpha(self, t: Tensor) -> Tensor:
        """α' = ½β·α."""
        return self._beta(t) * self.alpha(t) / 2

    def d_sigma(self, t: Tensor) -> Tensor:
        """σ' = −½β·α²/σ."""
        return self._beta(t) * self.alpha(t).square() / (-2 * self.sigma(t))

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """Inverse of the log-SNR, clipped to [0, 1]."""
        return self._t_of_integral(torch.nn.functional.softplus(-log_snr))

    def _beta(self, t: Tensor) -> Tensor:
        return self.beta_min + (self.beta_max - self.beta_min) * (1 - t)

    def _integral(self, t: Tensor) -> Tensor:
        s = 1 - t
        return s * (self.beta_min + s * ((self.beta_max - self.beta_min) / 2))

    def _t_of_integral(self, integral: Tensor) -> Tensor:
        integral = integral.clamp(max=(self.beta_min + self.beta_max) / 2)
        root = (self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * integral).sqrt()
        return (1 - 2 * integral / (self.beta_min + root)).clamp(0, 1)


def vp(beta_min: float = 0.1, beta_max: float = 20.0) -> GaussianPath:
    """The variance-preserving path from standard normal noise.

    Args:
        beta_min: β at the data, per unit of time; N·β_0 of a DDPM with N steps.
        beta_max: β at the noise.

    >>> path = vp()
    >>> path.alpha(torch.tensor([0.0, 1.0]))
    tensor([0.0066, 1.0000])
    """
    return GaussianPath(VP(beta_min, beta_max))
