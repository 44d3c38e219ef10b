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
from typing import TYPE_CHECKING, Any, final

import torch
from attrs import field as attribute, frozen, validators
from torch import Tensor

from fm_core.prediction import Prediction
from fm_plugins.thresholding.noise import keeping_noise

if TYPE_CHECKING:
    from fm_core.field import Field

__all__ = ["DynamicThreshold", "quantile"]


@final
@frozen
class DynamicThreshold:
    """The data prediction scaled back by a quantile of every sample.

    Args:
        quantile: Which quantile of |D| shall be at most 1, in (0, 1].
        maximum: Upper bound of the threshold s, ≥ 1; None for no bound, as in Imagen.
        keep_noise: Whether a DDIM step puts the network's noise back (diffusers' DDIM) or that of the thresholded data
            (DDPM).
    """

    quantile: float = attribute(default=0.995, validator=[validators.gt(0.0), validators.le(1.0)])
    maximum: float | None = attribute(default=None, validator=validators.optional(validators.ge(1.0)))
    keep_noise: bool = attribute(default=False, kw_only=True)

    needs: frozenset[Prediction] = attribute(default=frozenset({Prediction.DATA}), init=False, repr=False)
    acts_on = Prediction.DATA
    evals = 1
    layer = None

    @property
    def per_step(self) -> bool:
        """Whether what it does depends on where a step ends."""
        return self.keep_noise

    def guide(self, field: Field, x_t: Tensor, t: Tensor, cond: Any, *, until: Tensor | None = None) -> Tensor:
        """The thresholded data prediction.

        Args:
            field: The field inside.
            x_t: States, shape `(B, *D)`.
            t: Times, shape `(B,)`.
            cond: Condition, any pytree with the batch first, or None.
            until: The time the solver is going to, shape `(B,)`; needed to keep the noise.

        Returns:
            Shape `(B, *D)`.

        Raises:
            TimeError: If the noise shall be kept and the solver does not say where it is going.
        """
        data: Tensor = field.predict(x_t, t, cond, Prediction.DATA, until=until)
        bounded = self.threshold(data)
        return keeping_noise(field.path, data, bounded, t, until, "dynamic_threshold") if self.keep_noise else bounded

    def threshold(self, data: Tensor) -> Tensor:
        """`clamp(D, −s, s)/s` of every sample, shape `(B, *D)`."""
        wide = data.to(torch.promote_types(data.dtype, torch.float32))
        s = quantile(wide.abs().reshape(len(wide), -1), self.quantile).clamp(1.0, self.maximum)
        s = s.reshape((-1,) + (1,) * (data.ndim - 1))
        return (torch.minimum(torch.maximum(wide, -s), s) / s).to(data.dtype)


def quantile(values: Tensor, q: float) -> Tensor:
    """The q-quantile of every row, linear between order statistics.

    Args:
        values: Shape `(B, n)`, float32 or float64, n of any size.
        q: In [0, 1].

    Returns:
        Shape `(B,)`.

    >>> quantile(torch.tensor([[0.0, 1.0, 2.0, 4.0]]), 0.75)
    tensor([2.5000])
    """
    n = values.shape[1]
    position = q * (n - 1)
    below = min(math.floor(position), n - 1)
    top = values.topk(n - below, dim=1, sorted=True).values  # of high quantiles, far fewer than n
    return torch.lerp(top[:, -1], top[:, max(n - below - 2, 0)], position - below)
