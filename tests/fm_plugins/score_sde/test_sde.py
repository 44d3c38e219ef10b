"""VP, sub-VP and VE against the formulas of Song et al. 2021, their velocities against Lipman et al. 2023."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core import GaussianPath, Prediction
from fm_plugins.score_sde.sub_vp import sub_vp
from fm_plugins.score_sde.ve import ve
from fm_plugins.score_sde.vp import vp

T = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)


def beta(t: Tensor) -> Tensor:
    return 0.1 + (1 - t) * 19.9


def noise_squared(path: GaussianPath, t: Tensor) -> Tensor:
    """The library's default g² = 2σ²·d(log α/σ)/dt."""
    return 2 * path.sigma(t) ** 2 * (path.d_alpha(t) / path.alpha(t) - path.d_sigma(t) / path.sigma(t))


def test_the_default_noise_is_that_of_each_forward_sde() -> None:
    """β for VP, β(1 − e^{−2∫β}) for sub-VP, d(σ²)/ds for VE (Song et al., equations 9, 11 and 12)."""
    integral = 0.1 * (1 - T) + 9.95 * (1 - T) ** 2
    torch.testing.assert_close(noise_squared(vp(), T), beta(T), rtol=1e-11, atol=0)
    torch.testing.assert_close(noise_squared(sub_vp(), T), beta(T) * (1 - torch.exp(-2 * integral)), rtol=1e-11, atol=0)
    sigma = 0.01 * 5000 ** (1 - T)
    torch.testing.assert_close(noise_squared(ve(), T), 2 * sigma**2 * math.log(5000), rtol=1e-11, atol=0)


def test_drift_and_noise_of_the_forward_sde_give_mean_and_variance() -> None:
    """In s = 1 − t: `m' = f·m` and `(σ²)' = 2f·σ² + g²`, with f = −β/2 for VP and sub-VP."""
    for path in (vp(), sub_vp()):
        alpha, sigma, f = path.alpha(T), path.sigma(T), -beta(T) / 2
        torch.testing.assert_close(-path.d_alpha(T), f * alpha, rtol=1e-11, atol=1e-14)
        variance_change = -2 * sigma * path.d_sigma(T)
        torch.testing.assert_close(variance_change, 2 * f * sigma**2 + noise_squared(path, T), rtol=1e-9, atol=1e-11)


def test_sub_vp_has_the_variance_of_vp_squared() -> None:
    torch.testing.assert_close(sub_vp().sigma(T), vp().sigma(T) ** 2, rtol=1e-12, atol=0)
    torch.testing.assert_close(sub_vp().alpha(T), vp().alpha(T), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["ve", "vp"])
def test_conditional_velocities_are_lipmans(kind: str) -> None:
    """Equations 17 and 19, for any x, in their notation: σ_{1−t} and α_{1−t} are functions of 1 − t."""
    x, x1, x0 = torch.randn(3, 25, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    s = (1 - T)[:, None]
    if kind == "ve":
        path = ve(0.01, 50.0)
        sigma, d_sigma = 0.01 * 5000**s, 0.01 * 5000**s * math.log(5000)
        textbook = -d_sigma / sigma * (x - x1)
    else:
        path = vp(0.1, 20.0)
        total, rate = 0.1 * s + 9.95 * s**2, 0.1 + 19.9 * s
        textbook = -rate / 2 * (torch.exp(-total) * x - torch.exp(-total / 2) * x1) / (1 - torch.exp(-total))
    velocity = path.convert(x1, x, T, src=Prediction.DATA, dst=Prediction.VELOCITY)
    torch.testing.assert_close(velocity, textbook, rtol=1e-10, atol=1e-10)
    # Theorem 3, u = σ'/σ·(x − μ) + μ', with the path's own functions; along a path it is the target of training.
    alpha, sigma, d_alpha, d_sigma = (f(T)[:, None] for f in (path.alpha, path.sigma, path.d_alpha, path.d_sigma))
    torch.testing.assert_close(velocity, d_sigma / sigma * (x - alpha * x1) + d_alpha * x1, rtol=1e-11, atol=1e-11)
    sample = path.interpolate(x0, x1, T)
    along = path.convert(x1, sample.x_t, T, src=Prediction.DATA, dst=Prediction.VELOCITY)
    torch.testing.assert_close(along, path.target(sample, Prediction.VELOCITY), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["vp", "sub_vp"])
@pytest.mark.parametrize("options", [{"beta_min": 0.0}, {"beta_max": -1.0}])
def test_beta_must_be_positive(name: str, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="beta_m"):
        fm.build("path", name, **options)


@pytest.mark.parametrize("name", ["ve", "edm"])
@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.5), (-1.0, 2.0), (1.0, float("nan"))])
def test_noise_levels_must_fall(name: str, ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="sigma_m"):
        fm.build("path", name, sigma_min=ends[0], sigma_max=ends[1])
