"""Beta grids: quantiles of a Beta distribution, dense at both ends for parameters below 1.

In t the warp is w(u) = F⁻¹(u), F the distribution function of Beta(β, α) in t, which is Beta(α, β) in the noise level
1 − t of a linear path. With α = β = 0.6 both the coarse structure and the last details get short steps.

References:
    Lee et al. 2024, Beta Sampling is All You Need. https://arxiv.org/abs/2407.12173
"""

from __future__ import annotations

import math
from typing import final

import torch
from attrs import field, frozen, validators
from scipy.special import betainc, betaincinv
from torch import Tensor

from fm_core.protocols import ProbabilityPath
from fm_plugins.grids.warp import warped

__all__ = ["Beta"]

_POSITIVE = validators.and_(validators.gt(0.0), validators.lt(math.inf))


@final
@frozen
class Beta:
    """Times at equally spaced quantiles: 1 − t is Beta(α, β) distributed.

    >>> [round(t, 3) for t in Beta().times(None, 4).tolist()]
    [0.0, 0.176, 0.5, 0.824, 1.0]

    Args:
        alpha, beta: Parameters of the distribution of 1 − t; 1 and 1 is uniform. Lee et al. and diffusers have 0.6.
    """

    alpha: float = field(default=0.6, validator=_POSITIVE)
    beta: float = field(default=0.6, validator=_POSITIVE)

    def times(self, path: ProbabilityPath | None, steps: int, span: tuple[float, float] = (0.0, 1.0)) -> Tensor:
        """Grid of `steps` steps over `span`.

        Args:
            path: Not looked at.
            steps: Number of steps N.
            span: First and last time, in [0, 1]; falling to invert.

        Returns:
            Times `(N + 1,)`, float64 on the CPU.

        Raises:
            TimeError: For a grid that does not exist.
        """
        a, b = self.beta, self.alpha
        return warped(
            lambda u: torch.from_numpy(betaincinv(a, b, u.numpy())),
            lambda t: torch.from_numpy(betainc(a, b, t.numpy())),
            steps,
            span,
        )
