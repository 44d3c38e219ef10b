"""Intervals that cover as often as they say, and differences that are none between equal laws."""

from __future__ import annotations

import math

import pytest
import torch

from fm_core.bench.statistics import Scale, differ, estimate, ratio
from fm_core.errors import DataError
from fm_core.randomness import make_generator

SCALES: tuple[Scale, ...] = ("log", "plain")


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


def test_equal_laws_differ_seed_by_seed_as_seldom_as_the_page_says() -> None:
    """5 ± 1.2 % of 3,000 pairs of which each has the same seeds, on both scales."""
    for scale in SCALES:
        told = [
            differ(*(estimate(dict(enumerate(values)), scale) for values in pair))
            for pair in zip(draws(3000, 5, 1), draws(3000, 5, 2), strict=True)
        ]
        assert abs(told.count(True) / 3000 - 0.05) < 0.012
        assert None not in told


def test_shared_seeds_show_what_lies_within_the_scatter() -> None:
    """The scatter over seeds is a factor of four; a twentieth less on every seed is a difference all the same."""
    x = {0: 1.0, 1: 2.0, 2: 0.5, 3: 1.5}
    less, other = {seed: 0.95 * value for seed, value in x.items()}, {seed + 10: value for seed, value in x.items()}
    for scale in SCALES:
        own = estimate(x, scale)
        assert differ(own, estimate(other, scale)) is False, "without shared seeds nothing is to be seen"
    assert differ(estimate(x), estimate(less)) is True
    assert differ(estimate(x), estimate({seed: 1.005 * value for seed, value in x.items()})) is False, "too little"
    found = ratio(estimate(x), estimate(less))
    assert found is not None
    assert found.low == pytest.approx(0.95)
    assert ratio(estimate(x), estimate({0: 1.0, 1: 2.0, 7: 3.0})) is None


def test_figures_near_0_are_judged_on_the_plain_scale() -> None:
    """A figure that may fall to 0 scatters without end in logarithms: 0.00003 is as good as 0.016."""
    near, far = [0.004, 0.016, 0.00003], [0.18, 0.196, 0.17]
    assert differ(estimate(near), estimate(far)) is False
    assert differ(estimate(near, "plain"), estimate(far, "plain")) is True
    paired = (estimate(dict(enumerate(values)), "plain") for values in (near, far))
    assert differ(*paired) is True
    plain = estimate(near, "plain")
    assert plain.low is not None
    assert plain.high is not None
    assert -0.02 < plain.low < 0 < plain.high < 0.03


@pytest.mark.parametrize("scale", SCALES)
def test_two_seeds_are_too_few(scale: Scale) -> None:
    a, b = estimate([0.004, 0.016], scale), estimate([0.18, 0.196], scale)
    assert a.low is a.high is None
    assert a.std is not None
    assert differ(a, b) is None
    assert differ(estimate({0: 1.0, 1: 1.1}, scale), estimate({0: 5.0, 1: 5.1}, scale)) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_has_no_estimate(bad: float) -> None:
    with pytest.raises(DataError, match="finite"):
        estimate([bad, 1.0])


def test_numbers_of_any_size_have_intervals() -> None:
    found = estimate([1e300, 1.0, 1e-300])
    assert (found.low, found.high) == (0.0, math.inf)


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


def test_numbers_at_the_ends_of_what_a_float_holds_are_compared() -> None:
    large, small = estimate(dict(enumerate([1e308, 1.1e308, 1.2e308]))), estimate(dict(enumerate([1e-300] * 3)))
    assert large.mean == pytest.approx(1.1e308)
    assert differ(small, large) is True
    assert differ(large, small) is True
    below = estimate(dict(enumerate([-1e308, -1.1e308, -1.2e308])), "plain")
    assert differ(below, large) is True
