"""A metric: squared maximum mean discrepancy of a Gaussian kernel.

MMD² = E k(x, x') + E k(y, y') − 2·E k(x, y),   k(a, b) = exp(−|a − b|²/2h²)

It is the squared distance of the two laws' means in the kernel's space: 0 between equal laws, positive between all
others. The means run over all pairs, a sample with itself included (the V-statistic), so it is never negative, 0
between equal sets, and above 0 on average even between samples of one law: read it beside its floor.

References:
    Gretton et al. 2012, A kernel two-sample test, eq. 5. https://jmlr.org/papers/v13/gretton12a.html
"""

from __future__ import annotations

from typing import final

import torch
from attrs import field as attribute, frozen, validators
from fm_core import ShapeError
from torch import Tensor

__all__ = ["SquaredMMD"]


@final
@frozen
class SquaredMMD:
    """Squared maximum mean discrepancy between two sets of samples.

    Args:
        bandwidth: h, in the units of the data.
    """

    bandwidth: float = attribute(default=1.0, validator=validators.gt(0))

    def __call__(self, x: Tensor, y: Tensor) -> float:
        """The distance between samples `(n, *D)` and `(m, *D)`, computed in float64.

        Raises:
            ShapeError: If the events differ in shape, or a set is empty.
        """
        if x.shape[1:] != y.shape[1:] or not len(x) or not len(y):
            got = f"{tuple(x.shape)} and {tuple(y.shape)}"
            raise ShapeError(f"two sets of samples (n, *D) and (m, *D), n, m ≥ 1, have one event shape D; got {got}")
        a, b = x.flatten(1).double(), y.flatten(1).double()
        return self._mean(a, a) + self._mean(b, b) - 2 * self._mean(a, b)

    def _mean(self, a: Tensor, b: Tensor) -> float:
        """Mean of the kernel over all pairs."""
        distances = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
        return float(torch.exp(-(distances / self.bandwidth).square() / 2).mean())
