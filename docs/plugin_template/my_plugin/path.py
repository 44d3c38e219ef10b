"""A path: the linear one, scaled to constant variance.

x_t = α·x1 + σ·x0,   α = t/n,   σ = (1 − t)/n,   n² = t² + (1 − t)²

α² + σ² = 1, so the network sees states of unit variance throughout, while α/σ = t/(1 − t) is that of the linear path:
both know as much of the data at the same time, and a state of the linear path is n times a state of this one. From
n' = (2t − 1)/n follow α' = (1 − t)/n³ and σ' = −t/n³: the angle atan(α/σ) turns at the rate 1/n².
"""

from __future__ import annotations

from typing import final

import torch
from attrs import frozen
from fm_core import GaussianPath
from torch import Tensor

__all__ = ["Schedule", "path"]


@final
@frozen
class Schedule:
    """The two functions that are a Gaussian path; derivatives and the inverse of the log-SNR come by themselves."""

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of the data, elementwise: α(0) = 0, α(1) = 1."""
        return t / _norm(t)

    def sigma(self, t: Tensor) -> Tensor:
        """Weight of the noise, elementwise: σ(0) = 1, σ(1) = 0."""
        return (1 - t) / _norm(t)


def path() -> GaussianPath:
    """The path from standard normal noise to the data."""
    return GaussianPath(Schedule())


def _norm(t: Tensor) -> Tensor:
    return torch.sqrt(t.square() + (1 - t).square())
