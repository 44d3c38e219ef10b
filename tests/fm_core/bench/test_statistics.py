"""Intervals that cover as often as they say, and differences that are none between equal laws."""

from __future__ import annotations

import math

import pytest
import torch

from fm_core.bench.statistics import differ, estimate
from fm_core.randomness import make_generator


def draws(count: int, n: int, seed: int = 0, scale: float = 0.3) -> list[list[float]]:
    """Log-normal replicates of median 2."""
    z = torch.randn(count, n, generator=make_generator(seed), dtype=torch.float64)
    values: list[list[float]] = (2 * (scale * z).exp()).tolist()
    return values


@pytest.mark.parametrize("n", [3, 5, 10])
def test_intervals_cover_the_truth_as_often_as_they_say(n: int) -> None:
    """95 ± 1.5 % of 2,000 intervals hold the median of the law."""
    estimates = [estimate(x) for x in draws(2000, n)]
    covered = sum(e.low <= 2 <= e.high for e in estimates if e.low is not None and e.high is not None)
    assert abs(covered / 2000 - 0.95) < 0.015


def test_equal_laws_differ_as_seldom_as_the_page_says() -> None:
    pairs = zip(draws(3000, 5, 1), draws(3000, 5, 2), strict=True)
    differing = sum(bool(differ(estimate(x), estimate(y))) for x, y in pairs)
    assert differing / 3000 < 1 / 100


def test_a_planted_difference_is_found() -> None:
    x, y = draws(1, 5, scale=0.05)[0], [3 * value for value in draws(1, 5, 3, scale=0.05)[0]]
    assert differ(estimate(x), estimate(y)) is True


def test_one_replicate_tells_nothing() -> None:
    one = estimate([1.0])
    assert (one.median, one.low, one.std, one.n) == (1.0, None, None, 1)
    assert differ(one, estimate([5.0, 5.1])) is None


def test_figures_that_are_not_positive_have_intervals_too() -> None:
    some = estimate([-1.0, 0.0, 1.0])
    assert some.low is not None
    assert some.high is not None
    assert math.isclose(some.low, -4.3026527 / math.sqrt(3), rel_tol=1e-6)
    assert math.isclose(some.high, -some.low)


def test_the_interval_holds_the_median_and_equal_values_have_no_width() -> None:
    assert estimate([3.0, 3.0, 3.0]).low == pytest.approx(3.0, rel=1e-15)
    for x in (*draws(200, 9, 5, scale=2.0), [1e-9, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]):
        found = estimate(x)
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.median <= found.high


def test_no_values_are_no_estimate() -> None:
    with pytest.raises(ValueError, match="at least one"):
        estimate([])
