"""Denoising score matching: regression on the score of the noising kernel.

    ∇ log q(x_t | x1) = −(x_t − α·x1)/σ² = −x0/σ,    E λ(t)·‖ŝ(x_t, t) + x0/σ‖²

Its gradient is that of explicit score matching, `E λ(t)·‖ŝ(x_t, t) − ∇ log p_t(x_t)‖²` (Vincent 2011, appendix). With
λ = σ², the weight `simple`, every noise level counts by `‖σ·ŝ + x0‖²`, as Song & Ermon chose; `likelihood` is λ = g².

References:
    Vincent 2011, section 4.3. https://www.iro.umontreal.ca/~vincentp/Publications/smdae_techreport.pdf
    Song & Ermon 2019, equations 5 and 6. https://arxiv.org/abs/1907.05600
    Song et al. 2021, equation 7. https://arxiv.org/abs/2011.13456
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fm_core import Matching, Prediction
from fm_core.training_times import NoiseLevel, TimeSampler
from fm_core.weighting import WeightingLike

__all__ = ["dsm"]


def dsm(
    sigma: float | None = None,
    weight: WeightingLike = "simple",
    time: str | Mapping[str, Any] | TimeSampler | None = None,
) -> Matching:
    """Regression on the score, over all noise levels or at one.

    Args:
        sigma: The one noise level σ/α, in units of the data, at which Vincent matches; None: all of the path.
        weight: λ(t), a weighting of `fm_core.weighting`, by name, as a mapping, or itself: `"simple"` is σ², None is 1.
        time: Times of `fm_core.training_times`, likewise; uniform by default.

    Raises:
        ValueError: For both a noise level and times.

    >>> dsm(sigma=0.3).time
    NoiseLevel(sigma=0.3)
    """
    if sigma is not None and time is not None:
        raise ValueError(f"sigma = {sigma} is one time; got time = {time!r} besides; leave one of them out")
    times = (time or "uniform") if sigma is None else NoiseLevel(sigma)
    return Matching(Prediction.SCORE, time=times, weight=weight)
