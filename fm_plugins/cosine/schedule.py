"""The cosine path, `α = sin(πt/2)`, `σ = cos(πt/2)`: variance preserving, with finite derivatives at both ends."""

from __future__ import annotations

import math

import torch
from attrs import frozen
from torch import Tensor

from fm_core import GaussianPath

__all__ = ["Cosine", "cosine"]

_QUARTER = math.pi / 2


@frozen
class Cosine:
    """Schedule of the cosine path.

    α = sin(πt/2), σ = cos(πt/2), α' = (π/2)·σ, σ' = −(π/2)·α; the log-SNR is 2·log tan(πt/2), so t = (2/π)·atan(exp(
    log_snr/2)). The cosine is taken as the sine of the complement, which is exact near t = 1 in float32 too.

    References:
        Ma et al. 2024, SiT, section 2.2 (GVP). https://arxiv.org/abs/2401.08740
    """

    def alpha(self, t: Tensor) -> Tensor:
        """α = sin(πt/2)."""
        return torch.sin(t * _QUARTER)

    def sigma(self, t: Tensor) -> Tensor:
        """σ = cos(πt/2)."""
        return torch.sin((1 - t) * _QUARTER)

    def d_alpha(self, t: Tensor) -> Tensor:
        """α' = (π/2)·cos(πt/2)."""
        return self.sigma(t) * _QUARTER

    def d_sigma(self, t: Tensor) -> Tensor:
        """σ' = −(π/2)·sin(πt/2)."""
        return self.alpha(t) * -_QUARTER

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """Inverse of `log_snr = 2·log tan(πt/2)`."""
        return torch.atan(torch.exp(log_snr / 2)) / _QUARTER


def cosine() -> GaussianPath:
    """The cosine path from standard normal noise.

    >>> path = cosine()
    >>> path.alpha(torch.tensor(0.5)).square()
    tensor(0.5000)
    """
    return GaussianPath(Cosine())
