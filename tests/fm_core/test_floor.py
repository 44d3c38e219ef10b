"""The floor: a metric between independent draws of the very same generator."""

from __future__ import annotations

import math

import pytest
import torch

from fm_core.errors import DataError
from fm_core.floor import Floor, draw, floor
from fm_core.randomness import make_generator
from fm_plugins.metrics.energy_distance import EnergyDistance
from fm_plugins.metrics.sliced_wasserstein2 import SlicedWasserstein2
from fm_plugins.metrics.wasserstein2 import Wasserstein2


def normal(n, generator):
    return torch.randn(n, 2, generator=generator)


@pytest.mark.parametrize("metric", [Wasserstein2(), SlicedWasserstein2(projections=64), EnergyDistance()])
def test_floors_are_positive_and_fall_with_n(metric):
    coarse = floor(metric, normal, 16, draws=20, generator=make_generator(0))
    fine = floor(metric, normal, 256, draws=5, generator=make_generator(0))
    assert 0 < fine.mean < 0.6 * coarse.mean
    assert coarse.std > 0


def test_the_floor_of_the_unbiased_energy_distance_is_about_zero():
    unbiased = floor(EnergyDistance(unbiased=True), normal, 50, draws=40, generator=make_generator(0))
    assert abs(unbiased.mean) < 4 * unbiased.std / math.sqrt(40)


@pytest.mark.usefixtures("global_rng_untouched")
def test_equal_seeds_give_equal_floors():
    first = floor(Wasserstein2(), normal, 20, generator=make_generator(1))
    assert first == floor(Wasserstein2(), normal, 20, generator=make_generator(1))
    assert first != floor(Wasserstein2(), normal, 20, generator=make_generator(2))
    assert floor(Wasserstein2(), normal, 20) != floor(Wasserstein2(), normal, 20)


def test_mean_and_std_are_over_independent_pairs():
    draws = iter(range(100))
    seen = []

    def count(n, generator):
        return torch.full((n, 1), float(next(draws)) ** 2)

    def gap(x, y):
        seen.append(float(y.mean() - x.mean()))
        return seen[-1]

    result = floor(gap, count, 3, draws=3, generator=make_generator(0))
    # Squares of 0 … 5 in pairs: gaps 1, 5, 9.
    assert seen == [1, 5, 9]
    assert result == Floor(mean=5.0, std=4.0, draws=3, n=3)


def test_conditions_are_left_aside():
    def labelled(n, generator):
        return torch.randn(n, 2, generator=generator), torch.zeros(n)

    result = floor(Wasserstein2(), labelled, 20, generator=make_generator(1))
    assert result == floor(Wasserstein2(), normal, 20, generator=make_generator(1))


def test_the_draws_of_a_finite_set_share_no_row():
    rows = torch.arange(10.0)[:, None]
    pairs = []

    def record(x, y):
        pairs.append(sorted(torch.cat([x, y]).flatten().tolist()))
        return 0.0

    floor(record, rows, 5, draws=4, generator=make_generator(0))
    assert pairs == [list(range(10))] * 4


def test_a_finite_set_too_small_for_two_draws_is_refused():
    with pytest.raises(DataError, match="12 different rows are drawn from a set of 10"):
        floor(Wasserstein2(), torch.zeros(10, 2), 6)


def test_a_floor_from_one_draw_is_refused():
    with pytest.raises(DataError, match="draws=1"):
        floor(Wasserstein2(), normal, 5, draws=1)


def test_a_data_set_that_returns_no_tensor_is_refused():
    with pytest.raises(DataError, match="got a list"):
        draw(lambda n, generator: [0.0] * n, 3, make_generator(0))


def test_a_floor_prints_what_it_is():
    assert str(Floor(mean=0.5574, std=0.0942, draws=5, n=1000)) == "0.557 ± 0.094 (n = 1000, 5 draws)"
