"""Grids of the noise level σ/α: their spacing, their singular ends, on every path."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.stats import beta as beta_law

import fm_core as fm
from fm_core import GaussianPath
from fm_core.errors import TimeError
from fm_plugins.grids.beta import Beta
from fm_plugins.grids.noise_level import Karras, Sigmas, karras, log_snr, sigma
from fm_plugins.grids.shift import Shift, flux_shift

GRIDS = [
    karras(),
    karras(3.0),
    sigma(),
    log_snr(),
    karras(sigma_min=0.1, sigma_max=5.0),
    log_snr(sigma_max=3.0),
    Beta(),
]


def levels(path: GaussianPath, times: torch.Tensor) -> torch.Tensor:
    return path.sigma(times) / path.alpha(times)


@pytest.mark.parametrize("grid", GRIDS, ids=repr)
@pytest.mark.parametrize("span", [(0.0, 1.0), (0.2, 0.9), (0.0, 0.9)], ids=str)
def test_grid_goes_from_end_to_end_strictly_monotone(path: GaussianPath, grid: Any, span: tuple[float, float]) -> None:
    for steps in (1, 2, 3, 4, 25):
        times = grid.times(path, steps, span)
        assert times.shape == (steps + 1,)
        assert times.dtype == torch.float64
        assert (float(times[0]), float(times[-1])) == span
        assert times.diff().gt(0).all()
        torch.testing.assert_close(grid.times(path, steps, span[::-1]), times.flip(0), rtol=0, atol=0)


@pytest.mark.parametrize("steps", [1, 2, 5, 18])
def test_a_bound_that_is_the_paths_own_end_but_for_rounding_is_that_end(steps: int) -> None:
    """σ(1) of `ve` is its sigma_min to the last bits, and not quite."""
    for low in (0.01, 0.002, 0.03, 0.05):
        for high in (20.0, 50.0, 80.0):
            path = fm.build("path", "ve", sigma_min=low, sigma_max=high)
            given, own = karras(sigma_min=low, sigma_max=high), karras()
            torch.testing.assert_close(given.times(path, steps, (0.0, 1.0)), own.times(path, steps, (0.0, 1.0)))


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
def test_roots_of_the_noise_level_are_equally_spaced(path: GaussianPath, rho: float) -> None:
    root = levels(path, Karras(rho).times(path, 9, (0.2, 0.9))) ** (1 / rho)
    torch.testing.assert_close(root.diff(), root.diff().mean().expand(9), rtol=1e-7, atol=1e-9)


def test_log_snr_is_equally_spaced(path: GaussianPath) -> None:
    gaps = path.log_snr(log_snr().times(path, 9, (0.2, 0.9))).diff()
    torch.testing.assert_close(gaps, gaps.mean().expand(9), rtol=1e-7, atol=1e-9)


def test_edm_levels_are_those_of_the_paper(paths: dict[str, GaussianPath]) -> None:
    """σ_i for i = 0 … N−1 from 80 to 0.002, then 0: on a path that has both singular ends, after the step from ∞."""
    times = karras(sigma_min=0.002, sigma_max=80.0).times(paths["linear"], 11)
    i = torch.arange(10, dtype=torch.float64)
    expected = (80 ** (1 / 7) + i / 9 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(levels(paths["linear"], times[1:-1]), expected, rtol=1e-9, atol=0)


def test_sigmas_by_hand_are_met(paths: dict[str, GaussianPath]) -> None:
    given = [10.0, 3.0, 1.0, 0.3, 0.1]
    for name in ("linear", "cosine", "stranger", "ve"):
        times = Sigmas(given).times(paths[name], 6)
        torch.testing.assert_close(levels(paths[name], times[1:-1]), torch.tensor(given, dtype=torch.float64))
    with pytest.raises(TimeError, match="steps=6"):
        Sigmas(given).times(paths["linear"], 5)
    with_end = Sigmas([*given, 0.0]).times(paths["linear"], 6)
    torch.testing.assert_close(with_end, Sigmas(given).times(paths["linear"], 6))


@pytest.mark.parametrize("bad", [[], [1.0, 1.0], [1.0, 2.0], [-1.0], [math.inf, 1.0]])
def test_sigmas_fall(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="strictly falling"):
        Sigmas(bad)


def test_bounds_are_ordered_and_positive() -> None:
    with pytest.raises(ValueError, match="below"):
        karras(sigma_min=2.0, sigma_max=1.0)
    with pytest.raises(ValueError, match="sigma_min"):
        karras(sigma_min=0.0)


def test_beta_is_the_quantile_function(paths: dict[str, GaussianPath]) -> None:
    times = Beta(0.6, 0.8).times(paths["linear"], 10)
    u = torch.linspace(1, 0, 11, dtype=torch.float64)
    torch.testing.assert_close(1 - times, torch.from_numpy(beta_law.ppf(u.numpy(), 0.6, 0.8)), rtol=0, atol=1e-12)
    torch.testing.assert_close(Beta(1.0, 1.0).times(None, 4), torch.linspace(0, 1, 5, dtype=torch.float64))


def test_flux_shift_goes_through_its_two_points() -> None:
    assert flux_shift(256).shift == pytest.approx(math.exp(0.5))
    assert flux_shift(4096) == Shift(math.exp(1.15))
    with pytest.raises(ValueError, match="tokens"):
        flux_shift(0)


def test_noise_levels_need_a_gaussian_path() -> None:
    path: Any = object()
    with pytest.raises(TimeError, match="Gaussian"):
        karras().times(path, 4)


def test_grids_are_registered(paths: dict[str, GaussianPath]) -> None:
    for name, options, steps in (
        ("karras", {"rho": 7.0}, 5),
        ("sigma", {}, 5),
        ("log_snr", {}, 5),
        ("sigmas", {"levels": [1.0]}, 2),
        ("beta", {}, 5),
        ("flux_shift", {"tokens": 1024}, 5),
    ):
        assert len(fm.build("grid", name, **options).times(paths["linear"], steps)) == steps + 1
