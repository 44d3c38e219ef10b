"""What replicates say: estimates with intervals, differences beyond noise, and orders of convergence.

Replicates x_1 … x_n of a figure (one per seed) are taken to be log-normal, as errors, distances and times are: positive
and multiplied, rather than shifted, by chance. The 95 % interval is Student's on the logarithms,

    exp(mean log x ± t_{n−1, 0.975}·s/√n),      s the standard deviation of log x;

for figures that are not all positive it is Student's on the values themselves. Two figures *differ* where their
intervals are disjoint, which for equal laws happens in about one of 180 comparisons; else no difference was found. One
replicate has no interval, and nothing can be told of it.

References:
    Schenker & Gentleman 2001 (overlap as a test). https://doi.org/10.1198/000313001317097960
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from attrs import frozen

__all__ = ["Estimate", "differ", "estimate", "order"]

CONFIDENCE = 0.95

FINEST = 3
"""Points of least step that an order is fitted to."""

NEAR = 10.0
"""Errors below so many times the floor say nothing of the solver."""


@frozen
class Estimate:
    """A figure over its replicates.

    Args:
        median: Over the replicates.
        low: Lower end of the 95 % interval; None for one replicate.
        high: Its upper end.
        mean: Over the replicates.
        std: Of a single replicate; None for one.
        n: Number of replicates.
    """

    median: float
    low: float | None
    high: float | None
    mean: float
    std: float | None
    n: int

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.median:.3g}"
        return f"{self.median:.3g} [{self.low:.3g}, {self.high:.3g}]"


def estimate(values: Iterable[float]) -> Estimate:
    """Estimates a figure from its replicates.

    >>> str(estimate([0.9, 1.0, 1.1]))
    '1 [0.777, 1.28]'

    Args:
        values: At least one, finite.

    Raises:
        ValueError: If there is none.
    """
    x = list(values)
    if not x:
        raise ValueError("an estimate needs at least one value")
    middle, mean = statistics.median(x), statistics.fmean(x)
    if len(x) < 2:
        return Estimate(middle, None, None, mean, None, len(x))
    positive = min(x) > 0
    low, high = _student([math.log(value) for value in x] if positive else x)
    if positive:
        low, high = math.exp(low), math.exp(high)
    return Estimate(middle, min(low, middle), max(high, middle), mean, statistics.stdev(x), len(x))


def _student(x: Sequence[float]) -> tuple[float, float]:
    from scipy.stats import t

    mean, n = statistics.fmean(x), len(x)
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * statistics.stdev(x) / math.sqrt(n)
    return mean - half, mean + half


def differ(a: Estimate, b: Estimate) -> bool | None:
    """Whether two figures differ beyond noise: their intervals are disjoint; None where either has none."""
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return None
    return a.high < b.low or b.high < a.low


def order(nfe: Sequence[float], errors: Sequence[float], floor: float = 0.0) -> float | None:
    """The measured order of convergence p, of `error = C·h^p` with h ∝ 1/NFE.

    It is the slope of log error over −log NFE by least squares, over the finest points alone, which are nearest to the
    limit, without those that come near the floor.

    >>> order([10, 20, 40, 80], [9.0, 1 / 4, 1 / 16, 1 / 64])
    2.0

    Args:
        nfe: Network calls spent, in any order.
        errors: The errors there.
        floor: Error of the reference, or of rounding.

    Returns:
        None where fewer than two points are left.
    """
    points = sorted((n, e) for n, e in zip(nfe, errors, strict=True) if e > NEAR * floor and e > 0)[-FINEST:]
    x, y = ([math.log(point[i]) for point in points] for i in range(2))
    if len(set(x)) < 2:
        return None
    return -statistics.linear_regression(x, y).slope
