"""What replicates say: estimates with intervals, and differences beyond noise.

Replicates x_1 … x_n of a figure, one per seed, have a 95 % interval by Student's distribution on one of two scales,

    log      exp(mean log x ± t·s(log x)/√n)     chance multiplies: errors, distances, times
    plain    mean x ± t·s(x)/√n                  chance adds: figures that may come near 0 or below it

with t = t_{n−1, 0.975} and s the standard deviation. Logarithms of values near 0 scatter without end, so the scale is
the figure's, not the data's; values that are not all positive have no other than the plain one.

What shares seeds shares its draws, so two figures are compared seed by seed: they *differ* if the interval of their
ratio y/x excludes 1, and its median is further from 1 than a hundredth. On the plain scale that interval is the one of
the differences, in units of the mean |x|: 1 + (y − x)/mean|x|. Where no seeds are shared, the two intervals must be
disjoint. Of two equal laws that says "differ" in one of 20 comparisons with shared seeds, and in about one of 180
without. Else no difference was found.

Fewer than three replicates have no interval, and nothing can be told of them: at two, t is 12.7.

References:
    Schenker & Gentleman 2001 (overlap as a test). https://doi.org/10.1198/000313001317097960
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Literal

from attrs import field, frozen

from fm_core.errors import DataError

__all__ = ["CONFIDENCE", "FEWEST", "LEAST", "Estimate", "Scale", "differ", "estimate", "ratio"]

CONFIDENCE = 0.95

FEWEST = 3
"""Replicates that an interval takes."""

LEAST = 0.01
"""Relative differences below this are none."""

LARGEST = 1e300
"""Ratios above this are no further apart: there is room for sums of them."""

Scale = Literal["log", "plain"]


@frozen
class Estimate:
    """A figure over its replicates.

    Args:
        median: Over the replicates.
        low: Lower end of the 95 % interval; None for fewer than three replicates.
        high: Its upper end.
        mean: Over the replicates.
        std: Of a single replicate; None for one.
        n: Number of replicates.
        by_seed: The replicates, where it is known which seed each is of.
        scale: Of the interval.
    """

    median: float
    low: float | None
    high: float | None
    mean: float
    std: float | None
    n: int
    by_seed: Mapping[int, float] = field(factory=dict, repr=False)
    scale: Scale = "log"

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.median:.3g}"
        return f"{self.median:.3g} [{self.low:.3g}, {self.high:.3g}]"


def estimate(values: Iterable[float] | Mapping[int, float], scale: Scale = "log") -> Estimate:
    """Estimates a figure from its replicates.

    >>> str(estimate([0.9, 1.0, 1.1])), str(estimate([-1.0, 0.5, 1.0]))
    ('1 [0.777, 1.28]', '0.5 [-2.42, 2.75]')

    Args:
        values: At least one, finite; by their seeds where estimates shall be compared seed by seed.
        scale: Whether chance multiplies the figure or adds to it.

    Raises:
        DataError: If there is none, or one that is not finite.
    """
    by_seed = dict(values) if isinstance(values, Mapping) else {}
    x = list(by_seed.values()) if by_seed or isinstance(values, Mapping) else list(values)
    if not x:
        raise DataError("an estimate needs at least one value")
    if not all(map(math.isfinite, x)):
        raise DataError(f"an estimate needs finite values; got {x}: leave out what diverged")
    middle, mean = statistics.median(x), _mean(x)
    std = _deviation(x, mean) if len(x) > 1 else None
    low = high = None
    if len(x) >= FEWEST:
        low, high = _student(x, scale)
        low, high = min(low, middle), max(high, middle)
    return Estimate(middle, low, high, mean, std, len(x), by_seed, scale)


def _student(x: Sequence[float], scale: Scale) -> tuple[float, float]:
    logs = scale == "log" and min(x) > 0
    shifted = [math.log(value) for value in x] if logs else x
    mean, n = _mean(shifted), len(x)
    half = _quantile(n - 1) * _deviation(shifted, mean) / math.sqrt(n)
    return (_exp(mean - half), _exp(mean + half)) if logs else (mean - half, mean + half)


def _mean(x: Iterable[float]) -> float:
    """Also of numbers whose sum is too large for a float."""
    found = list(x)
    try:
        return statistics.fmean(found)
    except OverflowError:
        return sum(value / len(found) for value in found)


def _deviation(x: Sequence[float], mean: float) -> float:
    """Of a sample: without the fractions of `statistics.stdev`, which took most of a comparison's time."""
    return math.hypot(*(value - mean for value in x)) / math.sqrt(len(x) - 1)


def _exp(x: float) -> float:
    """Infinity where the number is too large for a float, as after a blow-up."""
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


@cache
def _quantile(freedom: int) -> float:
    """Of Student's distribution: a report asks for the same few thousands of times."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def ratio(before: Estimate, after: Estimate) -> Estimate | None:
    """After over before, seed by seed; None where they share too few seeds.

    >>> str(ratio(estimate({0: 1.0, 1: 2.0, 2: 4.0}), estimate({0: 1.1, 1: 2.1, 2: 4.5})))
    '1.1 [1, 1.19]'
    """
    x, y = before.by_seed, after.by_seed
    pairs = [(x[seed], y[seed]) for seed in x if seed in y]
    if len(pairs) < FEWEST:
        return None
    if "plain" not in (before.scale, after.scale) and all(a > 0 and b > 0 for a, b in pairs):
        return estimate([_held(b / a) for a, b in pairs])
    unit = _mean(abs(a) for a, _ in pairs) or _mean(abs(b) for _, b in pairs) or 1.0
    return estimate([_held(1 + (b / unit - a / unit)) for a, b in pairs], "plain")


def _held(x: float) -> float:
    """A ratio of what blew up is no more than very large."""
    return max(-LARGEST, min(LARGEST, x))


def differ(a: Estimate, b: Estimate) -> bool | None:
    """Whether two figures differ beyond noise; None where there are too few seeds to tell."""
    paired = ratio(a, b)
    if paired is not None:
        assert paired.low is not None
        assert paired.high is not None
        return (paired.low > 1 or paired.high < 1) and abs(paired.median - 1) > LEAST
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return None
    apart = a.high < b.low or b.high < a.low
    return apart and abs(a.median - b.median) > LEAST * min(abs(a.median), abs(b.median))
