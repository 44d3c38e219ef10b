"""Regression on the data and on v.

With the weights of `fm_core.weighting` these are the losses of Salimans & Ho: `snr` on the data is the noise's simple
loss, `truncated_snr` and `snr_plus_one` are theirs, the latter being 1 on v where α² + σ² = 1.

References:
    Salimans & Ho 2022, section 4. https://arxiv.org/abs/2202.00512
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fm_core import Matching, Prediction
from fm_core.training_times import TimeSampler
from fm_core.weighting import WeightingLike

__all__ = ["data", "v"]


def data(weight: WeightingLike = None, time: str | Mapping[str, Any] | TimeSampler = "uniform") -> Matching:
    """Regression on the data x1, at uniform times and with the weight 1 by default.

    Args:
        weight: A weighting of `fm_core.weighting`, by name, as a mapping, or itself.
        time: Times of `fm_core.training_times`, likewise.

    >>> data(weight="truncated_snr").needs == {"data"}
    True
    """
    return Matching(Prediction.DATA, time=time, weight=weight)


def v(weight: WeightingLike = None, time: str | Mapping[str, Any] | TimeSampler = "uniform") -> Matching:
    """Regression on `v = α·x0 − σ·x1`, at uniform times and with the weight 1 by default.

    Args:
        weight: A weighting of `fm_core.weighting`, by name, as a mapping, or itself.
        time: Times of `fm_core.training_times`, likewise.

    >>> v().needs == {"v"}
    True
    """
    return Matching(Prediction.V, time=time, weight=weight)
