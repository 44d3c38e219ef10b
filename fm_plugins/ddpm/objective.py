"""DDPM's objective: regression on the noise.

`E‖ε̂(x_t, t) − x0‖²` with uniform times is the paper's L_simple (their ε is x0 here, and their t is 1 − t). The network
learns the times between the knots of the path as well as the knots, so that any solver may ask it anywhere.

References:
    Ho et al. 2020, equation 14. https://arxiv.org/abs/2006.11239
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fm_core import Matching, Prediction
from fm_core.training_times import TimeSampler
from fm_core.weighting import WeightingLike

__all__ = ["ddpm"]


def ddpm(weight: WeightingLike = None, time: str | Mapping[str, Any] | TimeSampler = "uniform") -> Matching:
    """Regression on the noise, at uniform times and with the weight 1 by default.

    Args:
        weight: A weighting of `fm_core.weighting`, by name, as a mapping, or itself.
        time: Times of `fm_core.training_times`, likewise.

    >>> ddpm(weight={"name": "min_snr", "gamma": 5.0}, time="stratified").needs == {"noise"}
    True
    """
    return Matching(Prediction.NOISE, time=time, weight=weight)
