"""The path of EDM: `α = 1`, and σ(t) such that a uniform grid of t is Karras' ρ grid of noise levels."""

from __future__ import annotations

import torch
from attrs import field, frozen, validators
from torch import Tensor

from fm_core import GaussianPath

__all__ = ["EDM", "edm"]


@frozen
class EDM:
    """Schedule of EDM.

    α = 1, `σ = w^ρ` with `w = (1 − t)·σ_max^{1/ρ} + t·σ_min^{1/ρ}`, α' = 0, `σ' = ρ·w^{ρ−1}·(σ_min^{1/ρ} −
    σ_max^{1/ρ})`. The log-SNR is −2ρ·log w. At t = i/(N − 1) these are the paper's noise levels σ_0 … σ_{N−1}; the last
    step, to σ_N = 0, is the data prediction.

    Args:
        sigma_min: Noise level at t = 1.
        sigma_max: Noise level at t = 0.
        rho: Exponent: 1 is linear in t, more looks longer at low noise levels.

    References:
        Karras et al. 2022, equation 5. https://arxiv.org/abs/2206.00364
    """

    sigma_min: float = field(default=0.002, validator=validators.gt(0.0))
    sigma_max: float = field(default=80.0)
    rho: float = field(default=7.0, validator=validators.gt(0.0))

    closing = True

    @sigma_max.validator
    def _above_sigma_min(self, _: object, value: float) -> None:
        if not value > self.sigma_min:
            raise ValueError(f"sigma_max must be above sigma_min = {self.sigma_min}: noise falls; got {value}")

    def alpha(self, t: Tensor) -> Tensor:
        """α = 1."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """σ = w^ρ."""
        return self._root(t) ** self.rho

    def d_alpha(self, t: Tensor) -> Tensor:
        """α' = 0."""
        return torch.zeros_like(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        """σ' = ρ·w^{ρ−1}·w'."""
        high, low = self._ends
        return self._root(t) ** (self.rho - 1) * (self.rho * (low - high))

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """Inverse of `log_snr = −2ρ·log w`, clipped to [0, 1]."""
        high, low = self._ends
        return ((high - torch.exp(log_snr / (-2 * self.rho))) / (high - low)).clamp(0, 1)

    @property
    def _ends(self) -> tuple[float, float]:
        return self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)

    def _root(self, t: Tensor) -> Tensor:
        high, low = self._ends
        return high * (1 - t) + low * t


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> GaussianPath:
    """The path of EDM from normal noise of standard deviation `sigma_max`.

    Args:
        sigma_min: Noise level at t = 1, in units of the data, whose standard deviation the defaults take to be 0.5.
        sigma_max: Noise level at t = 0.
        rho: Exponent of the grid.

    >>> edm().sigma(torch.linspace(0, 1, 4))
    tensor([8.0000e+01, 9.7232e+00, 4.6998e-01, 2.0000e-03])
    """
    return GaussianPath(EDM(sigma_min, sigma_max, rho))
