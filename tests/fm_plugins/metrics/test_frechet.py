"""Fréchet distance: the closed form between Gaussians, scipy's matrix root as the oracle, features, and its floor."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.linalg import sqrtm

import fm_core as fm
from fm_core.errors import DataError
from fm_core.floor import floor
from fm_core.randomness import make_generator
from fm_plugins.metrics.frechet import Frechet


def normal(shape, seed):
    return torch.randn(shape, generator=make_generator(seed), dtype=torch.float64)


@pytest.mark.parametrize(("n", "m", "width"), [(40, 60, 5), (200, 30, 20), (12, 9, 30), (2, 2, 3)])
def test_it_is_the_formula_of_the_fid(n, m, width):
    """Also with fewer samples than features, where the covariances are singular."""
    x, y = normal((n, width), 0), normal((m, width), 1) @ normal((width, width), 2) + 0.5
    a, b = torch.cov(x.T), torch.cov(y.T)
    root = torch.as_tensor(sqrtm((a @ b).numpy()).real)
    expected = (x.mean(0) - y.mean(0)).square().sum() + a.trace() + b.trace() - 2 * root.trace()
    assert math.isclose(Frechet()(x, y), float(expected), rel_tol=1e-5)
    assert math.isclose(Frechet()(x, y), Frechet()(y, x), rel_tol=1e-9)


def test_equal_sets_are_at_zero_and_shifts_at_their_square():
    x = normal((50, 2, 3), 0)
    assert Frechet()(x, x) < 1e-12
    assert math.isclose(Frechet()(x, x + 2), 4 * 6, rel_tol=1e-9)
    assert math.isclose(Frechet()(x, 3 * x), float(4 * x.flatten(1).var(0).sum() + 4 * x.mean(0).square().sum()))


def test_between_gaussians_it_tends_to_the_closed_form():
    """‖μ‖² + (s − 1)²·d for N(0, I) and N(μ, s²·I)."""
    x, y = normal((20_000, 3), 0), 2 * normal((20_000, 3), 1) + 1
    assert math.isclose(Frechet()(x, y), 3 + 3, rel_tol=0.03)


def test_features_are_asked_in_batches_and_without_gradients():
    weight = torch.randn(4, 2, generator=make_generator(0)).requires_grad_()
    asked = []

    def features(x):
        asked.append(len(x))
        return x.flatten(1) @ weight

    x, y = normal((10, 1, 2, 2), 0).float(), normal((7, 1, 2, 2), 1).float()
    found = Frechet(features, batch=4)(x, y)
    assert asked == [4, 4, 2, 4, 3]
    assert math.isclose(found, Frechet()(x.flatten(1) @ weight.detach(), y.flatten(1) @ weight.detach()), rel_tol=1e-6)


def test_its_floor_falls_with_the_number_of_samples():
    few, many = (floor(Frechet(), lambda n, g: torch.randn(n, 4, generator=g), n, draws=8).mean for n in (30, 300))
    assert few > 5 * many > 0


def test_one_sample_has_no_covariance():
    with pytest.raises(DataError, match="got 1 and 5"):
        fm.build("metric", "frechet")(torch.zeros(1, 2), torch.zeros(5, 2))
