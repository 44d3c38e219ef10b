"""Dynamic thresholding: `clamp(D, −s, s)/s`, where s is a quantile of |D| over one sample, and at least 1.

For data in [−1, 1]: a sample whose q-quantile is above 1 is scaled back until it is 1, all others are clipped.
diffusers bounds s from above by `sample_max_value`, which is 1 as it comes and then leaves plain clipping; here there
is no bound unless one is given.

The quantile is that of numpy and torch, linear between order statistics; `torch.quantile` itself takes neither half
precision nor more than 2²⁴ values.

References:
    Saharia et al. 2022, section 2.3. https://arxiv.org/abs/2205.11487
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fm_core.shapes import over
from fm_plugins.thresholding.threshold import Threshold

__all__ = ["dynamic_threshold", "quantile_of"]


def dynamic_threshold(quantile: float = 0.995, maximum: float | None = None, *, keep_noise: bool = False) -> Threshold:
    """The data prediction scaled back by a quantile of every sample.

    Args:
        quantile: Which quantile of |D| shall be at most 1, in (0, 1].
        maximum: Upper bound of the threshold s, ≥ 1; None for no bound, as in Imagen.
        keep_noise: Whether a DDIM step puts the network's noise back (diffusers' DDIM) or that of the thresholded data
            (DDPM).

    Raises:
        ValueError: For a quantile or a maximum that is none.
    """
    if not 0 < quantile <= 1:
        raise ValueError(f"quantile must be in (0, 1]; got {quantile}")
    if maximum is not None and maximum < 1:
        raise ValueError(f"maximum must be at least 1, for what lies in [-1, 1] stays as it is; got {maximum}")

    def bounded(data: Tensor) -> Tensor:
        wide = data.to(torch.promote_types(data.dtype, torch.float32))
        s = over(quantile_of(wide.abs().flatten(1), quantile).clamp(1.0, maximum), wide)
        return (torch.minimum(torch.maximum(wide, -s), s) / s).to(data.dtype)

    return Threshold(bounded, keep_noise=keep_noise)


def quantile_of(values: Tensor, q: float) -> Tensor:
    """The q-quantile of every row, linear between order statistics.

    Args:
        values: Shape `(B, n)`, float32 or float64, n of any size.
        q: In [0, 1].

    Returns:
        Shape `(B,)`.

    >>> quantile_of(torch.tensor([[0.0, 1.0, 2.0, 4.0]]), 0.75)
    tensor([2.5000])
    """
    n = values.shape[1]
    position = q * (n - 1)
    below = min(math.floor(position), n - 1)
    top = values.topk(n - below, dim=1, sorted=True).values  # of high quantiles, far fewer than n
    return torch.lerp(top[:, -1], top[:, max(n - below - 2, 0)], position - below)
