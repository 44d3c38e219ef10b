"""EDM's sampler: Algorithm 2 by hand, order 2 on every Gaussian path, churn that keeps the marginals."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core import GaussianPath
from fm_core.executing import execute
from fm_core.law import output_law
from fm_core.testing import GaussianMixture
from fm_plugins.edm.solver import edm

LINE = GaussianMixture(torch.tensor([[-1.5], [0.2], [1.2]]), torch.tensor([0.3, 0.2, 0.4]))
CHURNS: dict[str, dict[str, float]] = {
    "none": {},
    "all": {"s_churn": 2.0},
    "some": {"s_churn": 40.0, "s_min": 0.05, "s_max": 5.0, "s_noise": 1.003},
    "most": {"s_churn": 1e9},
}


def algorithm_2(path: GaussianPath, x: Tensor, sigma: list[float], options: dict[str, float]) -> Tensor:
    """Karras et al. 2022 in their own variables; `sigma` holds σ_0 … σ_N with σ_N = 0 (not reached: see below)."""
    generator, n = torch.Generator().manual_seed(1), len(sigma) - 1

    def denoise(y: Tensor, level: float) -> Tensor:
        t = path.t_of_log_snr(torch.tensor(-2 * math.log(level), dtype=torch.float64))
        return LINE.predict(path, fm.Prediction.DATA, y, t)

    for i, (level, to) in enumerate(pairwise(sigma)):
        inside = options.get("s_min", 0.0) <= level <= options.get("s_max", math.inf)
        gamma = min(options.get("s_churn", 0.0) / n, math.sqrt(2) - 1) if inside else 0.0
        raised = min(level * (1 + gamma), sigma[0])
        if raised > level and i < n - 1:
            z = torch.randn(x.shape, dtype=x.dtype, generator=generator)
            x = x + math.sqrt(raised**2 - level**2) * options.get("s_noise", 1.0) * z
        else:
            raised = level
        d = (x - denoise(x, raised)) / raised
        y = x + (to - raised) * d
        if to > 0:
            y = x + (to - raised) * 0.5 * (d + (y - denoise(y, to)) / to)
        x = y
    return x


@pytest.mark.parametrize("churn", CHURNS)
def test_it_is_algorithm_2_where_alpha_is_1(paths: dict[str, GaussianPath], churn: str) -> None:
    path = paths["ve"]
    grid = torch.linspace(0, 1, 9, dtype=torch.float64)
    x = 20 * torch.randn(6, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    field, solver = LINE.field(path, "data"), edm(**CHURNS[churn])
    plan = solver.prepare(field, grid, final=True)  # the closing data prediction is Algorithm 2's step to σ = 0
    got = execute(plan, field, x, generator=torch.Generator().manual_seed(1))
    expected = algorithm_2(path, x, [*path.sigma(grid).tolist(), 0.0], CHURNS[churn])
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("churn", ["none", "all", "some"])
def test_law_converges_at_order_two(path: GaussianPath, churn: str) -> None:
    """With the data's scale of noise (s_noise = 1), whatever the churn: it carries marginals to marginals."""
    options = {**CHURNS[churn], "s_noise": 1.0}
    low, high = path.span("velocity", {"data"})
    end = torch.tensor(high, dtype=torch.float64)
    exact = path.alpha(end).square() * 0.25 + path.sigma(end).square()
    errors = []
    for steps in (100, 400):
        plan = edm(**options).plan(path, torch.linspace(low, high, steps + 1, dtype=torch.float64))
        errors.append(float((output_law(plan, path, 1.0, 0.25)[1] - exact).abs()))
    assert math.log2(errors[0] / errors[1]) / 2 > 1.55, errors  # from α = 0 a factor log(1/h) is lost
    assert errors[-1] < 0.03


def test_it_is_heun_in_the_noise_level_on_any_path(path: GaussianPath) -> None:
    """y = x/α, dy/dσ̃ = (y − D)/σ̃, one trapezoid."""
    t, s = torch.tensor([0.3, 0.55], dtype=torch.float64)
    field = LINE.field(path, "velocity")
    x = torch.randn(5, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    level, to = path.sigma(t) / path.alpha(t), path.sigma(s) / path.alpha(s)

    def slope(y: Tensor, at: Tensor, noise: Tensor) -> Tensor:
        return (y - LINE.predict(path, fm.Prediction.DATA, path.alpha(at) * y, at)) / noise

    y = x / path.alpha(t)
    d = slope(y, t, level)
    expected = path.alpha(s) * (y + (to - level) / 2 * (d + slope(y + (to - level) * d, s, to)))
    got = edm().solve(field, x, torch.stack([t, s]))
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("churn", ["all", "some", "most"])
def test_churned_states_live_at_the_time_of_their_own_noise(path: GaussianPath, churn: str) -> None:
    low, high = path.span("velocity", {"data"})
    grid = torch.linspace(low, high, 11, dtype=torch.float64)
    plan = edm(**CHURNS[churn]).plan(path, grid)
    assert plan.times == tuple(grid.tolist())
    before, times = plan.t0, torch.tensor(plan.state_times, dtype=torch.float64)
    ratio = path.sigma(times) / path.alpha(times)
    churned = 0
    for s, row in enumerate(plan.rows):
        if row.noise:
            ((k, shrink),) = row.states
            scale = CHURNS[churn].get("s_noise", 1.0)
            alpha = float(path.alpha(times[s + 1]))
            grown = float(ratio[k] ** 2) + (row.noise / alpha / scale) ** 2
            assert grown == pytest.approx(float(ratio[s + 1] ** 2), rel=1e-9)
            assert shrink == pytest.approx(alpha / float(path.alpha(times[k])), rel=1e-9)
            assert float(grid[0]) <= row.t < before
            assert not row.accepted
            churned += 1
        before = row.t if row.accepted else before
    assert churned >= 4


def test_ends_are_eulers(paths: dict[str, GaussianPath]) -> None:
    """From σ/α = ∞ a trapezoid does not exist, and at σ = 0 there is nothing to correct."""
    plan = edm(s_churn=5.0).plan(paths["linear"], torch.linspace(0, 1, 6, dtype=torch.float64))
    assert plan.rows[0].accepted
    assert plan.rows[0].noise == 0.0
    assert plan.rows[-1].accepted
    assert plan.rows[-1].states == ()
    assert plan.nfe == 2 * 5 - 2


@pytest.mark.parametrize("name", ["linear", "vp", "ve"])
@pytest.mark.parametrize("churn", ["none", "all", "most"])
def test_fine_grids_give_the_quantiles_of_a_mixture(paths: dict[str, GaussianPath], name: str, churn: str) -> None:
    pipe = fm.compose(path=paths[name], model=LINE.model(paths[name], "velocity"), solver=edm(**CHURNS[churn]))
    x = pipe.sample((4000, 1), steps=80, seed=0, dtype=torch.float64).x[:, 0].sort().values
    exact = (LINE.weights * torch.distributions.Normal(LINE.means[:, 0], LINE.stds).cdf(x[:, None])).sum(1)
    assert float((exact - (torch.arange(4000) + 0.5) / 4000).abs().max()) < 0.03


def test_noise_of_a_sample_is_its_own(path: GaussianPath) -> None:
    data = GaussianMixture(torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor(0.5))
    pipe = fm.compose(path=path, model=data.model(path, "velocity"), solver=edm(s_churn=2.0))
    one = pipe.sample((1, 3, 4, 4), steps=8, seed=3, dtype=torch.float32).x
    four = pipe.sample((4, 3, 4, 4), steps=8, seed=3, dtype=torch.float32, chunk=3).x
    assert four.dtype == torch.float32
    torch.testing.assert_close(one, four[:1], rtol=1e-4, atol=1e-4)


def test_what_is_declared() -> None:
    assert not edm().stochastic
    solver = fm.build("solver", "edm", s_churn=1.0)
    assert (solver.order, solver.evals_per_step, solver.stochastic, solver.needs) == (2, 2, True, {"data"})


@pytest.mark.parametrize("options", [{"s_churn": -1.0}, {"s_min": -1.0}, {"s_max": 0.0}, {"s_noise": -1.0}])
def test_negative_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be"):
        edm(**options)


@pytest.mark.parametrize(("name", "options"), [("linear", {}), ("cosine", {}), ("ddpm", {"betas": "squared_cosine"})])
def test_a_start_that_is_nearly_noise_is_stepped_over(name: str, options: dict[str, str]) -> None:
    """The trapezoid of a first step from σ/α = 1,000 to 10 would multiply the network's answer by 50."""
    path = fm.build("path", name, **options)
    data = GaussianMixture([[1.0, 0.0], [-1.0, 0.5]], 0.3)
    pipe = fm.compose(path=path, model=data.model(path, "noise"), solver="edm")
    x = pipe.sample((2000, 2), steps=10, seed=0, dtype=torch.float64).x
    expected = data(20_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(x.std(0), expected.std(0), rtol=0.15, atol=0)
