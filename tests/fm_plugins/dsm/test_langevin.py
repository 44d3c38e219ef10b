"""Annealed Langevin dynamics: NCSN's steps, its limit, and that it reaches what the probability flow reaches."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core import GaussianPath, TimeError
from fm_core.law import output_law
from fm_core.testing import GaussianMixture
from fm_plugins.dsm.langevin import annealed_langevin

LINE = GaussianMixture(torch.tensor([[-1.5], [0.2], [1.2]]), torch.tensor([0.3, 0.2, 0.4]))


def kolmogorov(x: Tensor) -> float:
    x = x.sort().values
    exact = (LINE.weights * torch.distributions.Normal(LINE.means[:, 0], LINE.stds).cdf(x[:, None])).sum(1)
    return float((exact - (torch.arange(len(x)) + 0.5) / len(x)).abs().max())


def test_steps_are_those_of_algorithm_1(paths: dict[str, GaussianPath]) -> None:
    """Song & Ermon 2019: for every σ_i, T times x ← x + (a_i/2)·score + √a_i·z with a_i = ε·σ_i²/σ_L²."""
    path, steps, epsilon = paths["ve"], 3, 1e-4
    grid = torch.linspace(0, 1, 5, dtype=torch.float64)
    sigma = path.sigma(grid)
    x = 20 * torch.randn(4, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    solver = annealed_langevin(steps, epsilon / float(sigma[-1]) ** 2)
    got = solver.solve(LINE.field(path, "score"), x, grid, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    for t, level in zip(grid, sigma, strict=True):
        size = epsilon * level**2 / sigma[-1] ** 2
        for _ in range(steps):
            z = torch.randn(4, 1, dtype=torch.float64, generator=generator)
            x = x + size / 2 * LINE.predict(path, fm.Prediction.SCORE, x, t) + size.sqrt() * z
    torch.testing.assert_close(got, x, rtol=1e-11, atol=1e-11)


def test_a_run_does_not_depend_on_the_units_of_the_state(paths: dict[str, GaussianPath]) -> None:
    """In y = x/α the plan on any path is NCSN's: the linear path's law, against VE levels σ/α by hand."""
    path, grid, delta = paths["linear"], torch.linspace(0.2, 0.9, 6, dtype=torch.float64), 0.3
    plan = annealed_langevin(4, delta).plan(path, grid)
    start = float(path.alpha(grid[0]) ** 2 * 0.25 + path.sigma(grid[0]) ** 2)
    _, variance = output_law(plan, path, 0.0, 0.25)
    y = start / float(path.alpha(grid[0])) ** 2
    for level in (path.sigma(grid) / path.alpha(grid)).tolist():
        for _ in range(4):
            y = (1 - delta / 2 * level**2 / (0.25 + level**2)) ** 2 * y + delta * level**2
    assert float(variance) == pytest.approx(float(path.alpha(grid[-1])) ** 2 * y, rel=1e-12)


def test_more_levels_bring_the_law_nearer(path: GaussianPath) -> None:
    low, high = path.span("velocity", {"noise"})
    errors = []
    for levels in (50, 100, 200):
        plan = annealed_langevin().plan(path, torch.linspace(low, high, levels + 1, dtype=torch.float64))
        end = torch.tensor(plan.times[-1], dtype=torch.float64)
        exact = path.alpha(end).square() * 0.25 + path.sigma(end).square()
        errors.append(abs(float(output_law(plan, path, 1.0, 0.25)[1] / exact) - 1))
    assert errors[2] < 0.66 * errors[1] < 0.66 * 0.66 * errors[0], errors
    assert errors[2] < 0.15


@pytest.mark.parametrize("name", ["ve", "linear", "cosine"])
def test_it_reaches_what_the_probability_flow_reaches(paths: dict[str, GaussianPath], name: str) -> None:
    pipe = fm.compose(path=paths[name], model=LINE.model(paths[name], "velocity"), solver=annealed_langevin(10, 1.0))
    langevin = pipe.sample((1500, 1), steps=100, seed=0, dtype=torch.float64).x[:, 0]
    flow = pipe.replace(solver="heun").sample((1500, 1), steps=40, seed=1, dtype=torch.float64).x[:, 0]
    assert kolmogorov(langevin) < 0.045
    assert kolmogorov(flow) < 0.04
    gap = (langevin.sort().values - flow.sort().values).abs().mean()  # W1 on the line
    assert float(gap) < 0.1


def test_the_network_is_asked_at_the_grids_times_alone(path: GaussianPath) -> None:
    low, high = path.span("velocity", {"noise"})
    grid = torch.linspace(low, high, 6, dtype=torch.float64)
    plan = annealed_langevin(4, 0.2).plan(path, grid)
    ends = float(path.sigma(grid[-1])) < 1e-6
    assert plan.times == tuple(grid.tolist())
    assert {plan.state_times[j] for j in plan.evaluated} == set(grid[: -1 if ends else None].tolist())
    assert plan.nfe == (4 * 5 + 1 if ends else 4 * 6)


def test_the_step_to_no_noise_is_the_data_prediction(paths: dict[str, GaussianPath]) -> None:
    path = paths["cosine"]
    plan = annealed_langevin(1, 0.2).plan(path, torch.tensor([0.4, 1.0], dtype=torch.float64))
    x = torch.randn(5, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noise = LINE.predict(path, fm.Prediction.NOISE, x, 0.4)
    row = plan.rows[-1]
    got = row.states[0][1] * x + row.predictions[0][1] * noise
    torch.testing.assert_close(got, LINE.predict(path, fm.Prediction.DATA, x, 0.4), rtol=1e-10, atol=1e-10)


def test_noise_alone_keeps_its_level(paths: dict[str, GaussianPath]) -> None:
    plan = annealed_langevin(1, 0.2).plan(paths["linear"], torch.tensor([0.0, 0.25, 0.5], dtype=torch.float64))
    assert plan.rows[1].states == ((1, 0.75),)
    with pytest.raises(TimeError, match=r"needs a level between noise alone and the data alone"):
        annealed_langevin().plan(paths["linear"], torch.tensor([0.0, 1.0], dtype=torch.float64))


def test_noise_of_a_sample_is_its_own(path: GaussianPath) -> None:
    data = GaussianMixture(torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor(0.5))
    pipe = fm.compose(path=path, model=data.model(path, "velocity"), solver=annealed_langevin(2, 0.2))
    one = pipe.sample((1, 3, 4, 4), steps=6, seed=3, dtype=torch.float32).x
    four = pipe.sample((4, 3, 4, 4), steps=6, seed=3, dtype=torch.float32, chunk=3).x
    assert four.dtype == torch.float32
    torch.testing.assert_close(one, four[:1], rtol=1e-4, atol=1e-4)


def test_what_is_declared_and_refused() -> None:
    solver = fm.build("solver", "annealed_langevin", steps_per_level=7)
    assert (solver.order, solver.evals_per_step, solver.stochastic, solver.needs) == (1, 7, True, {"noise"})
    for options in ({"steps_per_level": 0}, {"step_size": 0.0}, {"step_size": 2.0}, {"step_size": math.nan}):
        with pytest.raises(ValueError, match=r"steps_per_level|step_size"):
            annealed_langevin(**options)  # type: ignore[arg-type]
