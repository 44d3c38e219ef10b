"""The energy distance: 0 between equal laws and positive between all others.

    E(x, y) = 2·E‖x − y‖ − E‖x − x'‖ − E‖y − y'‖

It is the squared form (2∫(F − G)² on the line), without a root and without the factor nm/(n + m) of the test statistic.
Between n samples of each of one law it is of order 1/n, where W2 in d > 2 dimensions is of order n^(−1/d).

References:
    Székely & Rizzo 2013, Energy statistics, eq. 5 and 6. https://doi.org/10.1016/j.jspi.2013.03.018
"""

from __future__ import annotations

from typing import final

import torch
from attrs import frozen
from torch import Tensor

from fm_core.errors import DataError
from fm_plugins.metrics.points import as_points

__all__ = ["EnergyDistance"]

_BLOCK = 2**22


@final
@frozen
class EnergyDistance:
    """Energy distance, from all pairs, in blocks of bounded memory.

    >>> x, y = torch.zeros(4, 2), torch.tensor([[3.0, 4.0]])
    >>> EnergyDistance()(x, y)
    10.0

    Args:
        unbiased: Leave the zero distances of samples to themselves out of E‖x − x'‖ (a U-statistic): right on average,
            and negative at times. By default they are kept (a V-statistic): never negative, 0 between equal sets, and
            too large on average, by E‖x − x'‖/n + E‖y − y'‖/m.
    """

    unbiased: bool = False

    def __call__(self, x: Tensor, y: Tensor) -> float:
        """The distance between samples `(n, *D)` and `(m, *D)`.

        Raises:
            DataError: If it is to be unbiased and there is only one sample of either.
            ShapeError, DivergenceError: As `as_points` does.
        """
        a, b = as_points(x, y)
        n, m = len(a), len(b)
        if self.unbiased and min(n, m) < 2:
            raise DataError(
                f"the unbiased energy distance needs two samples of each, for their distance to each other; got {n} "
                f"and {m}. "
                "Draw more, or use unbiased=False."
            )
        own = 1 if self.unbiased else 0
        within = _total(a, a) / (n * (n - own)) + _total(b, b) / (m * (m - own))
        return 2 * _total(a, b) / (n * m) - within


def _total(x: Tensor, y: Tensor) -> float:
    """Sum of the distances of all pairs of points `(n, d)` and `(m, d)`."""
    blocks = torch.split(x, max(1, _BLOCK // len(y)))
    # Differences, not the expanded square: it loses half the digits of small distances, and equal points are not at 0.
    return sum(float(torch.cdist(block, y, compute_mode="donot_use_mm_for_euclid_dist").sum()) for block in blocks)
