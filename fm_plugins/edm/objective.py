"""EDM's objective: regression on the data at log-normal noise levels, with the weight that makes the preconditioned
network's own output count alike at all of them.

    E λ(s)·‖D(x_t, t) − x1‖²,    ln s ~ N(p_mean, p_std²),    λ = (s² + s_d²)/(s·s_d)²,    s = σ/α

References:
    Karras et al. 2022, equation 8 and Table 1. https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fm_core import Matching, Prediction
from fm_core.training_times import LogNormal, TimeSampler
from fm_core.weighting import WeightingLike

__all__ = ["edm"]


def edm(
    sigma_data: float = 0.5,
    p_mean: float = -1.2,
    p_std: float = 1.2,
    weight: WeightingLike = "edm",
    time: str | Mapping[str, Any] | TimeSampler | None = None,
) -> Matching:
    """Regression on the data with EDM's times and weight, on any Gaussian path.

    Args:
        sigma_data: Standard deviation of the data, for the weight.
        p_mean, p_std: Of the logarithm of the noise level σ/α, for the times.
        weight: In place of EDM's with `sigma_data`: a weighting of `fm_core.weighting`, by name, a mapping, or itself.
        time: In place of EDM's: times of `fm_core.training_times`, likewise.

    >>> edm().time
    LogNormal(p_mean=-1.2, p_std=1.2)
    """
    own: WeightingLike = {"name": "edm", "sigma_data": sigma_data} if weight == "edm" else weight
    return Matching(Prediction.DATA, time=LogNormal(p_mean, p_std) if time is None else time, weight=own)
