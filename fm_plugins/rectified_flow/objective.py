"""Rectified flow's objective: the velocity, regressed on at logit-normal times.

References:
    Esser et al. 2024, section 3.1. https://arxiv.org/abs/2403.03206
"""

from __future__ import annotations

import torch
from attrs import field, frozen, validators
from torch import Tensor

from fm_core import Matching, Prediction, ProbabilityPath

__all__ = ["LogitNormal", "rectified_flow"]


@frozen
class LogitNormal:
    """Times `1/(1 + exp(−(mean + std·z)))`, z ~ N(0, 1).

    Args:
        mean: Location on the logit scale: positive looks more often near the data (t = 1).
        std: Scale on the logit scale.
    """

    mean: float = 0.0
    std: float = field(default=1.0, validator=validators.gt(0.0))

    def __call__(
        self, path: ProbabilityPath, batch: int, generator: torch.Generator | None, device: torch.device | str | None
    ) -> Tensor:
        """Times of shape `(B,)` in (0, 1)."""
        return torch.randn(batch, generator=generator, device=device).mul_(self.std).add_(self.mean).sigmoid_()


def rectified_flow(mean: float = 0.0, std: float = 1.0) -> Matching:
    """Regression on the velocity at logit-normal times.

    Args:
        mean, std: Of the times, on the logit scale.
    """
    return Matching(Prediction.VELOCITY, time=LogitNormal(mean, std))
