"""The laws of the toy data sets: closed forms, and scikit-learn and FFJORD's own code as oracles."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons, make_s_curve

from fm_core.randomness import make_generator
from fm_plugins.metrics.energy_distance import EnergyDistance
from fm_plugins.toy_data.checkerboard import Checkerboard
from fm_plugins.toy_data.eight_gaussians import EightGaussians
from fm_plugins.toy_data.gaussian import Gaussian
from fm_plugins.toy_data.moons import Moons
from fm_plugins.toy_data.moons_to_gaussians import standardised_moons, wide_eight_gaussians
from fm_plugins.toy_data.pinwheel import Pinwheel
from fm_plugins.toy_data.rings import Rings
from fm_plugins.toy_data.scurve import SCurve

N = 40_000


def assert_same_law(x, y, other):
    """y is as far from x as `other`, an independent draw like x, is: to a few times 1/n of the spread."""
    floor = EnergyDistance()(x, other)
    assert EnergyDistance()(x, y) < max(3 * floor, 3e-3 * float(x.std()))


def sklearn(points):
    return torch.from_numpy(points).float()


@pytest.mark.parametrize("shape", [(), (3,), (1, 8, 8)])
def test_gaussian_is_standard_normal_of_any_event_shape(shape):
    x = Gaussian(shape)(20_000, make_generator(0)).double()
    assert x.shape == (20_000, *shape)
    assert torch.allclose(x.mean(0), torch.zeros(shape, dtype=torch.float64), atol=0.04)
    assert torch.allclose(x.var(0), torch.ones(shape, dtype=torch.float64), atol=0.06)
    assert abs(float((x**4).mean()) - 3) < 0.15


def test_gaussian_takes_a_dimension_or_a_list():
    assert Gaussian(5).shape == (5,)
    assert Gaussian([1, 8, 8]).shape == (1, 8, 8)


@pytest.mark.parametrize("data", [EightGaussians(), EightGaussians(std=math.sqrt(0.1)), wide_eight_gaussians()])
def test_eight_gaussians_has_eight_equal_modes_of_its_radius_and_std(data):
    x = data(N, make_generator(0)).double()
    angles = torch.arange(8, dtype=torch.float64) * math.pi / 4
    centers = data.radius * torch.stack([angles.cos(), angles.sin()], 1)
    assert torch.allclose(data.centers.double(), centers, atol=1e-5)
    # E x = 0, cov x = (R²/2 + s²)·I: every other weighting of the modes, or std, misses it.
    variance = data.radius**2 / 2 + data.std**2
    tolerance = 4 * math.sqrt(2 * variance**2 / N)
    assert torch.allclose(x.mean(0), torch.zeros(2, dtype=torch.float64), atol=4 * math.sqrt(variance / N))
    assert torch.allclose(torch.cov(x.T), variance * torch.eye(2, dtype=torch.float64), atol=tolerance)
    nearest = torch.cdist(x, centers).argmin(1)
    counts = nearest.bincount(minlength=8).double()
    assert float((counts - N / 8).abs().max()) < 5 * math.sqrt(N * 7 / 64)


def test_within_a_mode_the_std_is_the_parameter():
    # Radius large enough that no sample can be taken for another mode's.
    data = EightGaussians(radius=100.0, std=0.7)
    x = data(N, make_generator(1))
    nearest = torch.cdist(x, data.centers).argmin(1)
    offsets = (x - data.centers[nearest]).double()
    assert torch.allclose(offsets.std(0), torch.full((2,), 0.7, dtype=torch.float64), rtol=0.02)
    for mode in range(8):
        assert float(offsets[nearest == mode].mean(0).norm()) < 0.05


def test_eight_gaussians_defaults_are_the_runners():
    assert (EightGaussians().radius, EightGaussians().std) == (5.0, 1.0)
    assert (wide_eight_gaussians().radius, wide_eight_gaussians().std) == (12.0, 1.5)


def test_moons_without_noise_lie_on_the_two_half_circles():
    x = Moons(noise=0.0, scale=1.0, shift=(0.0, 0.0))(5000, make_generator(0)).double()
    outer = ((x**2).sum(1).sqrt() - 1).abs() < 1e-5
    inner = (((x[:, 0] - 1) ** 2 + (x[:, 1] - 0.5) ** 2).sqrt() - 1).abs() < 1e-5
    assert (outer & (x[:, 1] >= -1e-6) | inner & (x[:, 1] <= 0.5 + 1e-6)).all()
    assert abs(float(outer.double().mean()) - 0.5) < 0.04


def test_moons_have_the_law_of_scikit_learns_scaled_as_the_field_notes_say():
    g = make_generator(0)
    points, _ = make_moons(4000, noise=0.05, random_state=0)
    assert_same_law(Moons()(4000, g), sklearn(points * 2 - 1), Moons()(4000, g))


@pytest.mark.parametrize("n", [1, 2, 5, 100])
def test_stratified_moons_without_noise_are_scikit_learns_points(n):
    x = Moons(noise=0.0, stratified=True)(n, make_generator(0))
    points, _ = make_moons(n, noise=None, shuffle=False)
    distances = torch.cdist(x.double(), torch.from_numpy(points) * 2 - 1)
    assert float(distances.min(0).values.max()) < 1e-5
    assert float(distances.min(1).values.max()) < 1e-5


def test_standardised_moons_have_the_law_of_the_runners():
    g = make_generator(0)
    data = standardised_moons()
    points, _ = make_moons(4000, noise=0.1, random_state=0)
    points = (points - points.mean()) / points.std() * 7
    assert_same_law(data(4000, g), sklearn(points), data(4000, g))
    x = data(N, g).double()
    assert abs(float(x.mean())) < 0.1
    assert abs(float(x.std()) - 7) < 0.05


def test_scurve_has_the_law_of_scikit_learns():
    g = make_generator(0)
    points, _ = make_s_curve(4000, noise=0.05, random_state=0)
    assert_same_law(SCurve()(4000, g), sklearn(points[:, [0, 2]] * 1.5), SCurve()(4000, g))


def test_scurve_moments_are_those_of_the_formula():
    # θ uniform on ±3π/2: E sin² θ = ½, E (1 − cos θ)² = 3/2 − 2·E cos θ, E cos θ = −2/(3π); both odd, so means 0.
    x = SCurve()(N, make_generator(0)).double()
    expected = 1.5**2 * torch.tensor([0.5 + 0.0025, 1.5 + 4 / (3 * math.pi) + 0.0025], dtype=torch.float64)
    assert torch.allclose(x.var(0), expected, rtol=0.02)
    assert float(x.mean(0).abs().max()) < 0.05


def test_checkerboard_fills_the_even_squares_uniformly():
    x = Checkerboard()(N, make_generator(0)) / 2
    corner = x.floor().long()
    assert ((corner >= -2) & (corner < 2)).all()
    assert (corner.sum(1) % 2 == 0).all()
    counts = (4 * (corner[:, 0] + 2) + corner[:, 1] + 2).bincount(minlength=16)
    filled = counts[counts > 0].double()
    assert len(filled) == 8
    assert float((filled - N / 8).abs().max()) < 5 * math.sqrt(N * 7 / 64)
    within = (x - corner).double()
    assert torch.allclose(within.var(0), torch.full((2,), 1 / 12, dtype=torch.float64), rtol=0.03)


def test_checkerboard_is_ffjords():
    rng = np.random.default_rng(0)
    x1 = rng.random(4000) * 4 - 2
    x2 = rng.random(4000) - rng.integers(0, 2, 4000) * 2 + np.floor(x1) % 2
    g = make_generator(0)
    theirs = torch.from_numpy(np.stack([x1, x2], 1) * 2).float()
    assert_same_law(Checkerboard()(4000, g), theirs, Checkerboard()(4000, g))


def test_rings_are_four_equally_likely_circles():
    x = Rings(noise=0.0)(N, make_generator(0)).double()
    radius = x.norm(dim=1)
    ring = (radius / 0.75).round()
    assert torch.allclose(radius, 0.75 * ring, atol=1e-5)
    counts = ring.long().bincount(minlength=5)[1:].double()
    assert float((counts - N / 4).abs().max()) < 5 * math.sqrt(N * 3 / 16)
    # E r² = 9·(1 + ¼ + 9/16 + 1/16)/4, shared by both coordinates, noise not scaled.
    noisy = Rings()(N, make_generator(1)).double()
    expected = 9 * (30 / 16) / 4 / 2 + 0.08**2
    assert torch.allclose(noisy.var(0), torch.full((2,), expected, dtype=torch.float64), rtol=0.03)


def test_pinwheel_is_ffjords():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((4000, 2)) * np.array([0.3, 0.1])
    features[:, 0] += 1.0
    angles = np.linspace(0, 2 * np.pi, 5, endpoint=False)[np.repeat(np.arange(5), 800)] + 0.25 * np.exp(features[:, 0])
    rotations = np.stack([np.cos(angles), -np.sin(angles), np.sin(angles), np.cos(angles)])
    theirs = torch.from_numpy(2 * np.einsum("ti,tij->tj", features, rotations.T.reshape(-1, 2, 2))).float()
    g = make_generator(0)
    assert_same_law(Pinwheel()(4000, g), theirs, Pinwheel()(4000, g))
