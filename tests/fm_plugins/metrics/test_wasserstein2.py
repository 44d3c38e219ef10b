"""Exactness of the 2-Wasserstein distance: closed forms, the line, POT; and its three ways of computing agree."""

from __future__ import annotations

import itertools
import math
import time

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from fm_core.errors import DataError
from fm_core.randomness import make_generator
from fm_plugins.metrics import wasserstein2
from fm_plugins.metrics.sliced_wasserstein2 import squared_w2_on_lines
from fm_plugins.metrics.wasserstein2 import Wasserstein2


def normal(shape, seed):
    return torch.randn(shape, generator=make_generator(seed), dtype=torch.float64)


def ring(n, seed):
    angle = normal((n, 1), seed)
    return 5 * torch.cat([angle.cos(), angle.sin()], 1) + normal((n, 2), seed + 1)


@pytest.mark.parametrize("shape", [(1, 2), (7, 2), (300, 3), (20, 1, 8, 8)])
def test_a_translation_costs_its_length(shape):
    x, c = normal(shape, 0), normal(shape[1:], 1)
    assert math.isclose(Wasserstein2()(x, x.flip(0) + c), float(c.norm()), rel_tol=1e-12)


def test_a_scaling_of_centred_points_costs_what_the_gaussian_formula_says():
    # x → A·x with A positive definite is the gradient of a convex function: optimal, also between samples.
    x = normal((200, 2), 0)
    stretch = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    expected = float((x @ stretch - x).square().sum(1).mean().sqrt())
    assert math.isclose(Wasserstein2()(x, x @ stretch), expected, rel_tol=1e-12)


def test_against_all_permutations():
    x, y = normal((6, 2), 0), normal((6, 2), 1)
    best = min(float((x - y[list(p)]).square().sum(1).mean()) for p in itertools.permutations(range(6)))
    assert math.isclose(Wasserstein2()(x, y), math.sqrt(best), rel_tol=1e-12)


@pytest.mark.parametrize(("n", "m"), [(50, 50), (50, 100), (60, 40), (1, 9), (97, 89)])
def test_on_the_line_the_sorted_samples_are_matched(n, m):
    x, y = normal((n, 1), 0), 3 * normal((m, 1), 1) + 1
    assert math.isclose(Wasserstein2()(x, y), math.sqrt(float(squared_w2_on_lines(x, y))), rel_tol=1e-9)


@pytest.mark.parametrize(("n", "m"), [(400, 400), (90, 60), (101, 83)])
def test_equals_pot(n, m):
    ot = pytest.importorskip("ot")
    x, y = normal((n, 2), 0), ring(m, 1)
    cost = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square().numpy()
    expected = math.sqrt(ot.emd2(ot.unif(n), ot.unif(m), cost, numItermax=10**7))
    assert math.isclose(Wasserstein2()(x, y), expected, rel_tol=1e-8)


@pytest.mark.parametrize("n", [64, 300, 600])
@pytest.mark.parametrize("pair", ["same law", "far apart", "high dimension", "repeated points"])
def test_it_is_the_least_cost_of_plain_assignment(n, pair):
    x, y = {
        "same law": lambda: (normal((n, 2), 0), normal((n, 2), 1)),
        "far apart": lambda: (normal((n, 2), 0), 1e3 + ring(n, 1)),
        "high dimension": lambda: (normal((n, 64), 0), normal((n, 64), 1)),
        "repeated points": lambda: (normal((n, 2), 0).round(), ring(n, 1).round()),
    }[pair]()
    cost = (x[:, None].double() - y[None].double()).square().sum(-1).numpy()
    least = cost[linear_sum_assignment(cost)].mean()
    assert math.isclose(Wasserstein2()(x, y), math.sqrt(least), rel_tol=1e-12)


def test_sets_that_are_one_point_are_measured_too():
    assert Wasserstein2()(torch.zeros(500, 2), torch.zeros(500, 2)) == 0
    assert math.isclose(Wasserstein2()(torch.zeros(500, 2), torch.ones(500, 2)), math.sqrt(2), rel_tol=1e-12)


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_the_warm_start_bears_any_unit_of_length(unit):
    x, y = normal((300, 2), 0), ring(300, 1)
    assert math.isclose(Wasserstein2()(unit * x, unit * y), unit * Wasserstein2()(x, y), rel_tol=1e-9)


@pytest.mark.parametrize(("n", "m"), [(20, 20), (12, 18), (5, 40)])
def test_linear_program_and_repetition_agree(n, m):
    x, y = normal((n, 3), 0), normal((m, 3), 1)
    repeated = Wasserstein2()(x, y)
    assert math.isclose(math.sqrt(wasserstein2._linear_program(x, y)), repeated, rel_tol=1e-8)


@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_the_linear_program_bears_any_unit_of_length(unit):
    x, y = normal((20, 3), 0), normal((30, 3), 1)
    scaled = wasserstein2._linear_program(unit * x, unit * y)
    assert math.isclose(scaled, unit**2 * wasserstein2._linear_program(x, y), rel_tol=1e-6)


def test_one_against_many_is_the_root_mean_square():
    x, y = normal((1, 2), 0), normal((37, 2), 1)
    assert math.isclose(Wasserstein2()(x, y), float((x - y).square().sum(1).mean().sqrt()), rel_tol=1e-12)


def test_unequal_numbers_beyond_the_exact_limit_are_refused_with_a_way_out():
    with pytest.raises(DataError, match=r"1500 and 1499 .*sliced_wasserstein2"):
        Wasserstein2()(torch.zeros(1500, 2), torch.zeros(1499, 2))


def test_a_thousand_samples_take_less_than_a_second_of_processor_time():
    x, y = normal((1000, 2), 0), normal((1000, 2), 1)
    started = time.process_time()
    Wasserstein2()(x, y)
    # .3 s on one core; without the warm start .8 s. Processor time of all threads, so that other jobs do not count.
    assert time.process_time() - started < 2
