"""The path is the linear one, scaled to constant variance."""

from __future__ import annotations

import torch

from my_plugin.path import path

T = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)


def test_its_variance_is_constant_and_its_signal_to_noise_ratio_linear() -> None:
    alpha, sigma = path().alpha(T), path().sigma(T)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(T))
    torch.testing.assert_close(alpha / sigma, T / (1 - T))


def test_its_derivatives_are_those_of_the_derivation() -> None:
    n = (T**2 + (1 - T) ** 2).sqrt()
    torch.testing.assert_close(path().d_alpha(T), (1 - T) / n**3)
    torch.testing.assert_close(path().d_sigma(T), -T / n**3)


def test_it_leads_from_the_noise_to_the_data() -> None:
    x0, x1 = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(path().interpolate(x0, x1, torch.zeros(5)).x_t, x0)
    torch.testing.assert_close(path().interpolate(x0, x1, torch.ones(5)).x_t, x1)
