"""The sub-VP path with β linear in time, `α = exp(−½∫β)`, `σ = 1 − α²`: less noise than VP at every time."""

from __future__ import annotations

import torch
from attrs import field, frozen, validators
from torch import Tensor

from fm_core import GaussianPath

__all__ = ["SubVP", "sub_vp"]


@frozen
class SubVP:
    """Schedule of the sub-variance-preserving SDE.

    With s = 1 − t, β = β_min + s·(β_max − β_min) and `B(s) = ∫₀ˢ β = β_min·s + ½(β_max − β_min)·s²`:

        α = e^{−B/2},  σ = 1 − e^{−B},  α' = ½β·α,  σ' = −β·α².

    Both derivatives are finite at both ends. `σ/α = 2·sinh(B/2)`, so a log-SNR λ has `B = 2·asinh(½e^{−λ/2})`, and s is
    the positive root of the quadratic.

    Args:
        beta_min: β at the data, per unit of time.
        beta_max: β at the noise.

    References:
        Song et al. 2021, section 3.4 and appendix B. https://arxiv.org/abs/2011.13456
    """

    beta_min: float = field(default=0.1, validator=validators.gt(0.0))
    beta_max: float = field(default=20.0, validator=validators.gt(0.0))

    def alpha(self, t: Tensor) -> Tensor:
        """α = e^{−B/2}."""
        return torch.exp(self._integral(t) / -2)

    def sigma(self, t: Tensor) -> Tensor:
        """σ = 1 − e^{−B}."""
        return -torch.expm1(-self._integral(t))

    def d_alpha(self, t: Tensor) -> Tensor:
        """α' = ½β·α."""
        return self._beta(t) * self.alpha(t) / 2

    def d_sigma(self, t: Tensor) -> Tensor:
        """σ' = −β·α²."""
        return -self._beta(t) * self.alpha(t).square()

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """Inverse of the log-SNR, clipped to [0, 1]."""
        return self._t_of_integral(2 * torch.asinh(torch.exp(-log_snr / 2) / 2))

    def _beta(self, t: Tensor) -> Tensor:
        return self.beta_min + (self.beta_max - self.beta_min) * (1 - t)

    def _integral(self, t: Tensor) -> Tensor:
        s = 1 - t
        return s * (self.beta_min + s * ((self.beta_max - self.beta_min) / 2))

    def _t_of_integral(self, integral: Tensor) -> Tensor:
        integral = integral.clamp(max=(self.beta_min + self.beta_max) / 2)
        root = (self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * integral).sqrt()
        return (1 - 2 * integral / (self.beta_min + root)).clamp(0, 1)


def sub_vp(beta_min: float = 0.1, beta_max: float = 20.0) -> GaussianPath:
    """The sub-VP path from standard normal noise.

    Args:
        beta_min: β at the data, per unit of time.
        beta_max: β at the noise.

    >>> path = sub_vp()
    >>> path.sigma(torch.tensor([0.0, 1.0]))
    tensor([1.0000, 0.0000])
    """
    return GaussianPath(SubVP(beta_min, beta_max))
