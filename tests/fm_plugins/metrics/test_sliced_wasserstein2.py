"""Sliced W2: exact on lines for any n and m, and its average over directions."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import pytest
import torch

from fm_core.randomness import make_generator
from fm_plugins.metrics import sliced_wasserstein2
from fm_plugins.metrics.sliced_wasserstein2 import SlicedWasserstein2, squared_w2_on_lines
from fm_plugins.metrics.wasserstein2 import Wasserstein2


def normal(shape, seed):
    return torch.randn(shape, generator=make_generator(seed), dtype=torch.float64)


@pytest.mark.parametrize(("n", "m"), [(4, 4), (4, 6), (5, 7), (1, 8), (9, 3)])
def test_on_lines_it_is_the_integral_of_the_quantile_functions(n, m):
    x, y = normal((n, 3), 0), normal((m, 3), 1)
    a, b = x.sort(0).values, y.sort(0).values
    levels = sorted({Fraction(i, n) for i in range(n + 1)} | {Fraction(j, m) for j in range(m + 1)})
    expected = torch.zeros(3, dtype=torch.float64)
    for low, high in pairwise(levels):
        middle = (low + high) / 2
        expected += float(high - low) * (a[int(middle * n)] - b[int(middle * m)]).square()
    assert torch.allclose(squared_w2_on_lines(x, y), expected, rtol=1e-12)


@pytest.mark.parametrize(("n", "m"), [(50, 50), (40, 60)])
def test_in_one_dimension_it_is_w2(n, m):
    x, y = normal((n,), 0), 2 * normal((m,), 1)
    assert math.isclose(SlicedWasserstein2(projections=3)(x, y), Wasserstein2()(x, y), rel_tol=1e-9)


@pytest.mark.parametrize("dimension", [2, 64])
def test_a_translation_costs_its_length_over_the_root_of_the_dimension(dimension):
    x = normal((30, dimension), 0)
    c = torch.zeros(dimension, dtype=torch.float64)
    c[0] = 3.0
    # E θ₁² = 1/d; its standard deviation is √2/d.
    expected, projections = 9 / dimension, 4096
    squared = SlicedWasserstein2(projections=projections)(x, x + c) ** 2
    assert abs(squared - expected) < 4 * math.sqrt(2 / projections) * expected


def test_it_is_never_above_w2():
    x, y = normal((60, 5), 0), normal((60, 5), 1) + 1
    assert SlicedWasserstein2()(x, y) < Wasserstein2()(x, y)


def test_equals_pot_on_the_same_directions():
    ot = pytest.importorskip("ot")
    x, y = normal((50, 4), 0), normal((50, 4), 1) + 1
    theta = torch.randn(4, 64, generator=make_generator(7), dtype=torch.float64)
    theta /= theta.norm(dim=0)
    expected = ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), projections=theta.numpy())
    assert math.isclose(SlicedWasserstein2(projections=64, seed=7)(x, y), float(expected), rel_tol=1e-9)


def test_directions_depend_on_the_seed_alone():
    x, y = normal((20, 3), 0), normal((20, 3), 1)
    assert SlicedWasserstein2(seed=1)(x, y) == SlicedWasserstein2(seed=1)(x, y)
    assert SlicedWasserstein2(seed=1)(x, y) != SlicedWasserstein2(seed=2)(x, y)


def test_blocks_of_directions_change_nothing(monkeypatch):
    x, y = normal((20, 3), 0), normal((30, 3), 1)
    whole = SlicedWasserstein2(projections=100)(x, y)
    monkeypatch.setattr(sliced_wasserstein2, "_BLOCK", 7 * 50)
    assert math.isclose(SlicedWasserstein2(projections=100)(x, y), whole, rel_tol=1e-12)


def test_no_directions_are_refused():
    with pytest.raises(ValueError, match="projections"):
        SlicedWasserstein2(projections=0)
