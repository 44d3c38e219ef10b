"""Static thresholding: the data prediction clamped to a range.

References:
    Saharia et al. 2022, section 2.3. https://arxiv.org/abs/2205.11487
"""

from __future__ import annotations

from fm_plugins.thresholding.threshold import Threshold

__all__ = ["clip"]


def clip(low: float = -1.0, high: float = 1.0, *, keep_noise: bool = False) -> Threshold:
    """The data prediction clamped to [low, high].

    Args:
        low, high: The range of the data, in its units.
        keep_noise: Whether a DDIM step puts the network's noise back (diffusers' DDIM) or that of the clipped data
            (DDPM).

    Raises:
        ValueError: If the range is empty.
    """
    if not low < high:
        raise ValueError(f"the range of the data from {low} to {high} is empty; low must be below high")
    return Threshold(lambda data: data.clamp(low, high), keep_noise=keep_noise)
