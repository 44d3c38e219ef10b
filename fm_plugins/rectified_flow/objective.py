"""Rectified flow's objective: the velocity, regressed on at logit-normal times.

References:
    Esser et al. 2024, section 3.1. https://arxiv.org/abs/2403.03206
"""

from __future__ import annotations

from fm_core import Matching, Prediction
from fm_core.training_times import LogitNormal

__all__ = ["rectified_flow"]


def rectified_flow(mean: float = 0.0, std: float = 1.0) -> Matching:
    """Regression on the velocity at logit-normal times.

    Args:
        mean, std: Of the times, on the logit scale.
    """
    return Matching(Prediction.VELOCITY, time=LogitNormal(mean, std))
