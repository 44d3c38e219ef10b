"""Energy distance: closed forms on the line, scipy as the oracle, and what bias it has."""

from __future__ import annotations

import math
from statistics import fmean

import pytest
import torch
from scipy.stats import energy_distance as scipys

from fm_core.errors import DataError
from fm_core.randomness import make_generator
from fm_plugins.metrics import energy_distance
from fm_plugins.metrics.energy_distance import EnergyDistance


def normal(shape, seed):
    return torch.randn(shape, generator=make_generator(seed), dtype=torch.float64)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (30, 30), (20, 45)])
def test_on_the_line_it_is_the_square_of_scipys(n, m):
    x, y = normal((n,), 0), 2 * normal((m,), 1) + 1
    assert math.isclose(EnergyDistance()(x, y), scipys(x.numpy(), y.numpy()) ** 2, rel_tol=1e-9)


def test_two_points_are_twice_their_distance_apart():
    assert EnergyDistance()(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])) == 10


def test_between_shifted_gaussians_it_tends_to_the_closed_form():
    # E|N(c, 2)| = 2/√π·exp(−c²/4) + c·erf(c/2), so E = 2·(that) − 2·(2/√π).
    c = 1.5
    folded = 2 / math.sqrt(math.pi) * math.exp(-(c**2) / 4) + c * math.erf(c / 2)
    expected = 2 * folded - 4 / math.sqrt(math.pi)
    x, y = normal((4000,), 0), normal((4000,), 1) + c
    assert math.isclose(EnergyDistance(unbiased=True)(x, y), expected, rel_tol=0.06)


def test_unbiased_is_zero_on_average_and_biased_is_too_large_by_the_stated_amount():
    g = make_generator(0)
    n, m = 6, 9
    pairs = [(torch.randn(n, 1, generator=g), torch.randn(m, 1, generator=g)) for _ in range(1500)]
    # E|x − x'| of standard normals is 2/√π.
    bias = 2 / math.sqrt(math.pi) * (1 / n + 1 / m)
    assert abs(fmean(EnergyDistance(unbiased=True)(x, y) for x, y in pairs)) < 0.1 * bias
    assert math.isclose(fmean(EnergyDistance()(x, y) for x, y in pairs), bias, rel_tol=0.1)


def test_blocks_of_rows_change_nothing(monkeypatch):
    x, y = normal((50, 3), 0), normal((30, 3), 1)
    whole = EnergyDistance()(x, y)
    monkeypatch.setattr(energy_distance, "_BLOCK", 100)
    assert math.isclose(EnergyDistance()(x, y), whole, rel_tol=1e-12)


def test_unbiased_needs_two_samples_of_each():
    with pytest.raises(DataError, match="got 1 and 5"):
        EnergyDistance(unbiased=True)(torch.zeros(1, 2), torch.zeros(5, 2))
