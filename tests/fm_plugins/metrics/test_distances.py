"""What all distances between samples share: zero on equal sets, symmetry, invariances, and how they refuse."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from fm_core.errors import DataError, DivergenceError, ShapeError
from fm_core.randomness import make_generator
from fm_plugins.metrics import fm_components
from fm_plugins.metrics.energy_distance import EnergyDistance
from fm_plugins.metrics.sliced_wasserstein2 import SlicedWasserstein2
from fm_plugins.metrics.wasserstein2 import Wasserstein2

METRICS = {
    "wasserstein2": Wasserstein2(),
    "sliced_wasserstein2": SlicedWasserstein2(projections=32),
    "energy_distance": EnergyDistance(),
}

each = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
sizes = st.integers(1, 9)
seeds = st.integers(0, 2**31)
shapes = st.sampled_from([(), (1,), (2,), (5,), (1, 8, 8)])
dtypes = st.sampled_from([torch.float32, torch.float64])


def normal(shape, seed, dtype=torch.float64):
    return torch.randn(shape, generator=make_generator(seed), dtype=dtype)


@each
@given(n=sizes, shape=shapes, seed=seeds, dtype=dtypes)
@settings(max_examples=25)
def test_equal_sets_are_at_distance_zero_in_any_order(metric, n, shape, seed, dtype):
    x = normal((n, *shape), seed, dtype)
    order = torch.randperm(n, generator=make_generator(seed))
    assert metric(x, x) == 0
    assert abs(metric(x, x[order])) < 1e-12


@each
@given(n=sizes, copies=st.integers(2, 4), seed=seeds)
@settings(max_examples=25)
def test_samples_repeated_equally_are_the_same_law(metric, n, copies, seed):
    x = normal((n, 2), seed)
    assert abs(metric(x, x.repeat(copies, 1))) < 1e-12


@each
@given(n=sizes, m=sizes, shape=shapes, seed=seeds, dtype=dtypes)
@settings(max_examples=25)
def test_distances_are_symmetric_positive_floats(metric, n, m, shape, seed, dtype):
    x, y = normal((n, *shape), seed, dtype), normal((m, *shape), seed + 1, dtype)
    assert type(metric(x, y)) is float
    assert metric(x, y) > 0
    assert math.isclose(metric(x, y), metric(y, x), rel_tol=1e-9)


@each
@given(seed=seeds, n=sizes, m=sizes)
@settings(max_examples=25)
def test_a_common_shift_changes_nothing_and_a_common_factor_scales(metric, seed, n, m):
    x, y = normal((n, 3), seed), normal((m, 3), seed + 1)
    assert math.isclose(metric(x + 7, y + 7), metric(x, y), rel_tol=1e-9)
    assert math.isclose(metric(3 * x, 3 * y), 3 * metric(x, y), rel_tol=1e-9)


@each
def test_a_large_common_offset_costs_no_digits(metric):
    x, y = normal((40, 2), 0), normal((40, 2), 1)
    assert math.isclose(metric(x + 1e8, y + 1e8), metric(x, y), rel_tol=1e-6)


@pytest.mark.parametrize("metric", [Wasserstein2(), EnergyDistance(), EnergyDistance(unbiased=True)])
def test_rotations_change_nothing(metric):
    rotation = torch.linalg.qr(normal((3, 3), 2)).Q
    x, y = normal((30, 3), 0), normal((20, 3), 1)
    assert math.isclose(metric(x @ rotation, y @ rotation), metric(x, y), rel_tol=1e-9)


@pytest.mark.parametrize("metric", [Wasserstein2(), SlicedWasserstein2(projections=32)])
@given(seed=seeds, n=sizes)
@settings(max_examples=25)
def test_triangle_inequality(metric, seed, n):
    x, y, z = (normal((n, 2), seed + k) for k in range(3))
    assert metric(x, z) <= metric(x, y) + metric(y, z) + 1e-12


@each
def test_images_are_compared_as_their_pixels(metric):
    x, y = normal((6, 1, 8, 8), 0), normal((6, 1, 8, 8), 1)
    assert metric(x, y) == metric(x.flatten(1), y.flatten(1))


@each
def test_float32_samples_are_compared_in_float64(metric):
    # Two points 1e-6 apart, far from the origin: in float32 arithmetic their squares cancel.
    x = torch.tensor([[1.0, 2.0]])
    y = torch.nextafter(x, torch.full_like(x, 9.0))
    exact = metric(x.double(), y.double())
    assert exact > 0
    assert metric(x, y) == exact


@each
def test_gradients_are_neither_needed_nor_kept(metric):
    x = normal((4, 2), 0).requires_grad_()
    assert type(metric(x, x + 1)) is float


@each
@pytest.mark.usefixtures("global_rng_untouched")
def test_distances_are_functions_of_the_samples_alone(metric):
    x, y = normal((8, 3), 0), normal((8, 3), 1)
    first = metric(x, y)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        assert metric(x, y) == first


@each
@pytest.mark.parametrize(
    ("x", "y"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 3)),
        (torch.zeros(3, 4), torch.zeros(3, 2, 2)),
        (torch.zeros(3), torch.zeros(())),
    ],
)
def test_events_of_different_shape_are_refused(metric, x, y):
    with pytest.raises(ShapeError, match="event shape"):
        metric(x, y)


@each
def test_empty_sets_are_refused_by_name(metric):
    with pytest.raises(DataError, match="second set of samples is empty"):
        metric(torch.zeros(3, 2), torch.zeros(0, 2))


@each
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_samples_that_are_not_finite_are_refused_by_number(metric, value):
    y = torch.zeros(3, 2)
    y[1, 0] = value
    with pytest.raises(DivergenceError, match=r"1 of 3 samples of the second set .* number 1"):
        metric(torch.zeros(3, 2), y)


def test_the_plugin_lists_exactly_these_metrics():
    listed = fm_components()
    assert {component.name for component in listed} == {*METRICS, "frechet", "normalized_path_energy"}
    assert {component.kind for component in listed} == {"metric"}
