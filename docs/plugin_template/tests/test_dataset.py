"""Samples lie on the spiral, evenly over the disc, and repeat with their generator."""

from __future__ import annotations

import math

import torch

from my_plugin.dataset import Spiral


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_without_noise_the_angle_grows_with_the_radius() -> None:
    x = Spiral(radius=2.0, turns=1.5, noise=0.0)(1000, generator()).double()
    theta = x.norm(dim=1) / 2.0 * 3 * math.pi
    on_spiral = x.norm(dim=1, keepdim=True) * torch.stack([theta.cos(), theta.sin()], -1)
    torch.testing.assert_close(x, on_spiral, atol=1e-5, rtol=0)


def test_points_are_spread_evenly_over_the_disc() -> None:
    share = Spiral(radius=2.0, noise=0.0)(20_000, generator()).square().sum(1) / 4
    assert math.isclose(float(share.mean()), 1 / 2, abs_tol=0.01)  # |x|²/R² is uniform; five standard errors


def test_any_number_of_samples_repeats_with_its_generator() -> None:
    for n in (1, 2, 65):
        assert Spiral()(n, generator()).shape == (n, 2)
        assert torch.equal(Spiral()(n, generator()), Spiral()(n, generator()))
