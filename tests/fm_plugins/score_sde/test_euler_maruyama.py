"""Euler–Maruyama: the reverse SDE's textbook step, weak order 1 for any noise level, and marginals that are kept."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch

import fm_core as fm
from fm_core import GaussianPath, Plan, TimeError
from fm_core.law import output_law
from fm_core.testing import GaussianMixture
from fm_plugins.runge_kutta.solver import euler
from fm_plugins.score_sde.euler_maruyama import euler_maruyama

MEAN = torch.tensor([1.5, -0.7], dtype=torch.float64)
VARIANCE = torch.tensor([0.25, 1.7], dtype=torch.float64)
LINE = GaussianMixture(torch.tensor([[-1.5], [0.2], [1.2]]), torch.tensor([0.3, 0.2, 0.4]))
LEVELS: dict[str, dict[str, Any]] = {
    "default": {},
    "weak": {"level": 0.1},
    "strong": {"level": 2.0},
    "constant": {"g": 1.0},
    "sigma": {"g": lambda path, t: path.sigma(t)},
    "rising": {"g": lambda path, t: 0.5 + t},
}


def grid_of(path: GaussianPath, steps: int) -> torch.Tensor:
    low, high = path.span("velocity", {"velocity"})
    return torch.linspace(low, high, steps + 1, dtype=torch.float64)


def law_error(plan: Plan, path: GaussianPath) -> float:
    """The largest error of mean and variance at the plan's end."""
    end = torch.tensor(plan.times[-1], dtype=torch.float64)
    mean, variance = output_law(plan, path, MEAN, VARIANCE)
    exact = path.alpha(end).square() * VARIANCE + path.sigma(end).square()
    return float(torch.cat([mean - path.alpha(end) * MEAN, variance - exact]).abs().max())


@pytest.mark.parametrize("name", ["vp", "linear", "cosine", "ve", "stranger"])
@pytest.mark.parametrize("level", LEVELS)
def test_law_converges_at_weak_order_one(paths: dict[str, GaussianPath], name: str, level: str) -> None:
    path, solver = paths[name], euler_maruyama(**LEVELS[level])
    errors = [law_error(solver.plan(path, grid_of(path, steps)), path) for steps in (100, 200, 400)]
    assert errors[-1] < 0.08
    assert errors[-1] < 2e-3 or all(math.log2(a / b) > 0.8 for a, b in pairwise(errors)), errors


def test_noise_without_its_drift_keeps_a_bias(paths: dict[str, GaussianPath]) -> None:
    """The same noise on the ODE's drift: an error that no grid takes away, and that this measure sees."""
    path = paths["vp"]
    errors = []
    for steps in (100, 200, 400):
        grid = grid_of(path, steps)
        wrong = [
            fm.Row(row.t, ode.states, ode.predictions, row.noise)
            for row, ode in zip(euler_maruyama(g=1.0).plan(path, grid).rows, euler().plan(path, grid).rows, strict=True)
        ]
        errors.append(law_error(Plan(fm.Prediction.VELOCITY, float(grid[0]), wrong), path))
    assert min(errors) > 0.2
    assert errors[-1] > 0.9 * errors[0]


def test_default_step_is_that_of_the_vp_sde(paths: dict[str, GaussianPath]) -> None:
    """dx = −½β·x ds + √β dW reversed: x ← x + h·(½β·x + β·score) + √(β·h)·z (Song et al. 2021, equations 6 and 11)."""
    path, h = paths["vp"], 0.01
    t = torch.tensor(0.4, dtype=torch.float64)
    beta = 0.1 + (20 - 0.1) * (1 - t)
    (row,) = euler_maruyama().plan(path, torch.stack([t, t + h])).rebase(path, fm.Prediction.SCORE).rows
    assert dict(row.states)[0] == pytest.approx(float(1 + h * beta / 2), rel=1e-12)
    assert row.predictions[0][1] == pytest.approx(float(h * beta), rel=1e-12)
    assert row.noise == pytest.approx(float((h * beta).sqrt()), rel=1e-12)


def test_any_noise_level_gives_the_drift_u_plus_half_g_squared_score(path: GaussianPath) -> None:
    t, s, g = 0.3, 0.35, 0.8
    field = LINE.field(path, "velocity")
    x = torch.randn(5, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u, score = (LINE.predict(path, fm.Prediction(kind), x, t) for kind in ("velocity", "score"))
    z = torch.randn(5, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = x + (s - t) * (u + 0.5 * g**2 * score) + g * math.sqrt(s - t) * z
    got = euler_maruyama(g=g).solve(field, x, torch.tensor([t, s]).double(), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("options", [{"level": 0.0}, {"g": 0.0}, {"g": 0}])
def test_without_noise_it_is_euler_for_the_ode(path: GaussianPath, options: dict[str, float]) -> None:
    solver, grid = euler_maruyama(**options), grid_of(path, 7)
    assert not solver.stochastic
    for times in (grid, grid.flip(0)):
        assert solver.plan(path, times) == euler().plan(path, times)


def test_the_noise_level_is_bounded_where_the_signal_begins(paths: dict[str, GaussianPath]) -> None:
    """g² = 2σ²λ' is infinite at t = 0; noise replaces at most all of the state of unit-variance data in one step."""
    for name in ("linear", "cosine", "stranger"):
        for steps in (1, 5, 1000):
            grid = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
            plan = euler_maruyama().plan(paths[name], grid[:-1] if steps > 1 else grid)
            assert all(row.noise**2 <= 2.0 + 1e-12 for row in plan.rows)
    drift = euler_maruyama().plan(paths["linear"], torch.linspace(0, 1, 101, dtype=torch.float64)).rows[0]
    assert drift.noise**2 == pytest.approx(2 * 0.01 * (10 + 1))  # σ·(σ·min(α'/α, 10) − σ') at t = 0


def test_it_runs_to_the_very_ends_of_a_flow(paths: dict[str, GaussianPath]) -> None:
    pipe = fm.compose(path=paths["linear"], model=LINE.model(paths["linear"], "velocity"), solver=euler_maruyama())
    out = pipe.sample((4, 1), steps=5, seed=0, dtype=torch.float64)
    assert (float(out.times[0]), float(out.times[-1]), out.nfe) == (0.0, 1.0, 5)


@pytest.mark.parametrize("name", ["linear", "vp", "ve"])
@pytest.mark.parametrize("level", ["default", "weak", "rising"])
def test_fine_grids_give_the_quantiles_of_a_mixture(paths: dict[str, GaussianPath], name: str, level: str) -> None:
    solver = euler_maruyama(**LEVELS[level])
    steps = 600 if (name, level) == ("ve", "rising") else 200
    pipe = fm.compose(path=paths[name], model=LINE.model(paths[name], "velocity"), solver=solver)
    x = pipe.sample((4000, 1), steps=steps, seed=0, dtype=torch.float64).x[:, 0].sort().values
    exact = (LINE.weights * torch.distributions.Normal(LINE.means[:, 0], LINE.stds).cdf(x[:, None])).sum(1)
    assert float((exact - (torch.arange(4000) + 0.5) / 4000).abs().max()) < 0.03


def test_noise_of_a_sample_is_its_own(path: GaussianPath) -> None:
    data = GaussianMixture(torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor(0.5))
    pipe = fm.compose(path=path, model=data.model(path, "velocity"), solver=euler_maruyama())
    one = pipe.sample((1, 3, 4, 4), steps=6, seed=3, dtype=torch.float32).x
    four = pipe.sample((4, 3, 4, 4), steps=6, seed=3, dtype=torch.float32, chunk=3).x
    assert four.dtype == torch.float32
    torch.testing.assert_close(one, four[:1], rtol=1e-5, atol=1e-5)


def test_what_is_declared() -> None:
    solver = fm.build("solver", "euler_maruyama", level=0.5)
    assert (solver.order, solver.evals_per_step, solver.stochastic, solver.needs) == (1, 1, True, {"velocity"})


@pytest.mark.parametrize("options", [{"level": -1.0}, {"g": -0.1}, {"g": math.nan}, {"level": math.inf}, {"g": "beta"}])
def test_negative_and_infinite_noise_levels_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be a finite number ≥ 0; got"):
        euler_maruyama(**options)


def test_two_noise_levels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"level scales the default noise level, and g replaces it"):
        euler_maruyama(level=0.5, g=1.0)


def test_a_noise_level_that_is_infinite_is_located(paths: dict[str, GaussianPath]) -> None:
    grid = torch.linspace(0, 1, 5, dtype=torch.float64)
    with pytest.raises(TimeError, match=r"noise level g is inf at t = 0; it must be finite"):
        euler_maruyama(g=lambda path, t: 1 / t).plan(paths["linear"], grid)


def test_noise_where_nothing_is_left_to_score_is_refused(paths: dict[str, GaussianPath]) -> None:
    with pytest.raises(TimeError, match=r"drift .* is not finite at t = 1"):
        euler_maruyama(g=1.0).plan(paths["linear"], torch.tensor([1.0, 0.5], dtype=torch.float64))
