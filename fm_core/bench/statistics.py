"""What replicates say: estimates with intervals, and differences beyond noise.

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
from functools import cache

from attrs import frozen

__all__ = ["Estimate", "differ", "estimate"]

CONFIDENCE = 0.95


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
    mean, n = statistics.fmean(x), len(x)
    half = _quantile(n - 1) * statistics.stdev(x) / math.sqrt(n)
    return mean - half, mean + half


@cache
def _quantile(freedom: int) -> float:
    """Of Student's distribution: a report asks for the same few thousands of times."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def differ(a: Estimate, b: Estimate) -> bool | None:
    """Whether two figures differ beyond noise: their intervals are disjoint; None where either has none."""
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return None
    return a.high < b.low or b.high < a.low
