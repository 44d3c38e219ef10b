"""Stochastic Heun: weak order 2 for any noise level, Heun's method without noise."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch

import fm_core as fm
from fm_core import GaussianPath, Plan
from fm_core.executing import execute
from fm_core.law import output_law
from fm_core.randomness import BlockGenerator
from fm_core.testing import GaussianMixture
from fm_plugins.runge_kutta.solver import heun
from fm_plugins.score_sde.stochastic_heun import stochastic_heun

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
def test_law_converges_at_weak_order_two(paths: dict[str, GaussianPath], name: str, level: str) -> None:
    """Over a factor of 8: where the bounded default meets its bound the error is O(h²) with a factor that wobbles."""
    path, solver = paths[name], stochastic_heun(**LEVELS[level])
    first, last = (law_error(solver.plan(path, grid_of(path, steps)), path) for steps in (50, 400))
    assert math.log2(first / last) / 3 > 1.65, (first, last)
    assert last < 1e-3


@pytest.mark.parametrize("level", ["default", "constant", "rising"])
def test_local_error_is_of_third_order(paths: dict[str, GaussianPath], level: str) -> None:
    path, errors = paths["cosine"], []
    for h in (0.08, 0.04, 0.02):
        plan = stochastic_heun(**LEVELS[level]).plan(path, torch.tensor([0.5, 0.5 + h], dtype=torch.float64))
        errors.append(law_error(plan, path))
    assert all(2.8 < math.log2(a / b) < 3.3 for a, b in pairwise(errors)), errors


def test_both_stages_share_one_noise(path: GaussianPath) -> None:
    t, s = torch.tensor([0.3, 0.35], dtype=torch.float64)
    g, h = 0.8, 0.05
    field = LINE.field(path, "velocity")
    x, z = torch.randn(2, 5, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def drift(y: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        u, score = (LINE.predict(path, fm.Prediction(kind), y, at) for kind in ("velocity", "score"))
        return u + 0.5 * g**2 * score

    first = x + h * drift(x, t) + g * math.sqrt(h) * z
    expected = first + h / 2 * (drift(first, s) - drift(x, t))
    plan = stochastic_heun(g=g).plan(path, torch.stack([t, s]))
    assert [bool(row.noise) for row in plan.rows] == [True, False]
    assert plan.rows[0].noise == pytest.approx(g * math.sqrt(h), rel=1e-12)
    got = execute(plan, field, x, generator=_Fixed(z))
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


class _Fixed(BlockGenerator):
    """A generator whose draw is known."""

    def __new__(cls, z: torch.Tensor) -> _Fixed:
        return super().__new__(cls, 0, 0, len(z))  # type: ignore[return-value]

    def __init__(self, z: torch.Tensor) -> None:
        self.z = z

    def draw(self, sampler: object) -> torch.Tensor:
        return self.z


@pytest.mark.parametrize("options", [{"level": 0.0}, {"g": 0.0}])
def test_without_noise_it_is_heun_for_the_ode(path: GaussianPath, options: dict[str, float]) -> None:
    solver, grid = stochastic_heun(**options), grid_of(path, 7)
    assert not solver.stochastic
    x = torch.randn(3, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    field = LINE.field(path, "velocity")
    for times in (grid, grid[1:].flip(0)):
        torch.testing.assert_close(solver.solve(field, x, times), heun().solve(field, x, times), rtol=1e-9, atol=1e-9)


def test_the_last_step_is_eulers_where_the_score_is_unknown(paths: dict[str, GaussianPath]) -> None:
    """A g of one's own at σ = 0: c = g²/(2σ) is not known, so the network is not asked there."""
    grid = torch.linspace(0, 1, 11, dtype=torch.float64)
    for options, nfe in (({"g": 1.0}, 19), ({}, 20)):
        plan = stochastic_heun(**options).plan(paths["linear"], grid)
        assert (plan.nfe, plan.times) == (nfe, tuple(grid.tolist()))


@pytest.mark.parametrize("name", ["linear", "vp", "ve"])
@pytest.mark.parametrize("level", ["default", "constant"])
def test_fine_grids_give_the_quantiles_of_a_mixture(paths: dict[str, GaussianPath], name: str, level: str) -> None:
    solver = stochastic_heun(**LEVELS[level])
    pipe = fm.compose(path=paths[name], model=LINE.model(paths[name], "velocity"), solver=solver)
    x = pipe.sample((4000, 1), steps=100, seed=0, dtype=torch.float64).x[:, 0].sort().values
    exact = (LINE.weights * torch.distributions.Normal(LINE.means[:, 0], LINE.stds).cdf(x[:, None])).sum(1)
    assert float((exact - (torch.arange(4000) + 0.5) / 4000).abs().max()) < 0.03


def test_noise_of_a_sample_is_its_own(path: GaussianPath) -> None:
    data = GaussianMixture(torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor(0.5))
    pipe = fm.compose(path=path, model=data.model(path, "velocity"), solver=stochastic_heun())
    one = pipe.sample((1, 3, 4, 4), steps=12, seed=3, dtype=torch.float32).x
    four = pipe.sample((4, 3, 4, 4), steps=12, seed=3, dtype=torch.float32, chunk=3).x
    assert four.dtype == torch.float32
    torch.testing.assert_close(one, four[:1], rtol=1e-4, atol=1e-4)


def test_what_is_declared() -> None:
    solver = fm.build("solver", "stochastic_heun", level=0.5)
    assert (solver.order, solver.evals_per_step, solver.stochastic, solver.needs) == (2, 2, True, {"velocity"})
