"""Ancestral sampling: the textbook's update to float64 precision, its law, its noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from attrs import frozen
from torch import Tensor

import fm_core as fm
from fm_core import GaussianPath, TimeError
from fm_core.law import output_law
from fm_core.testing import GaussianMixture
from fm_plugins.ddpm.solver import ddpm

VARIANCES = ("posterior", "beta")
MIXTURE = GaussianMixture(torch.tensor([[-1.5], [0.2], [1.2]]), torch.tensor([0.3, 0.2, 0.4]))


@frozen
class Discrete:
    """Ho et al.'s schedule at its own times: index k is t = 1 − (k + 1)/N."""

    beta: Tensor

    @property
    def kept(self) -> Tensor:
        return torch.cat([torch.ones(1, dtype=torch.float64), (1 - self.beta).cumprod(0)])

    def _at(self, t: Tensor) -> Tensor:
        return self.kept[((1 - t) * len(self.beta)).round().long()]

    def alpha(self, t: Tensor) -> Tensor:
        return self._at(t).sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        return (1 - self._at(t)).sqrt()

    def d_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    d_sigma = d_alpha


def kolmogorov(x: Tensor, mixture: GaussianMixture) -> float:
    """The largest distance between the distribution functions of draws (N,) and of a mixture on the line."""
    x = x.sort().values
    normal = torch.distributions.Normal(mixture.means[:, 0], mixture.stds)
    exact = (mixture.weights * normal.cdf(x[:, None])).sum(1)
    return float((exact - (torch.arange(len(x)) + 0.5) / len(x)).abs().max())


@pytest.mark.parametrize("variance", VARIANCES)
def test_every_step_is_the_textbook_update(variance: str) -> None:
    """Ho et al. 2020, Algorithm 2 and equation 11: x ← (x − β/√(1 − ᾱ)·ε)/√(1 − β) + σ·z, σ² = β or β̃, 1000 steps."""
    n = 1000
    beta = torch.linspace(1e-4, 0.02, n, dtype=torch.float64)
    path = GaussianPath(Discrete(beta))
    times = 1 - torch.arange(n, -1, -1, dtype=torch.float64) / n  # the last step goes to k = −1, the data
    plan = ddpm(variance).plan(path, times)
    bars = (1 - beta).cumprod(0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), bars[:-1]])
    tilde = beta * (1 - before) / (1 - bars)
    x, eps, z = torch.randn(3, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for row, k in zip(plan.rows, range(n - 1, -1, -1), strict=True):
        data = (x[k] - (1 - bars[k]).sqrt() * eps[k]) / bars[k].sqrt()
        got = sum(w * x[k] for _, w in row.states) + sum(w * data for _, w in row.predictions) + row.noise * z[k]
        std = (beta[k] if variance == "beta" else tilde[k]).sqrt() if k else 0.0
        textbook = (x[k] - beta[k] / (1 - bars[k]).sqrt() * eps[k]) / (1 - beta[k]).sqrt() + std * z[k]
        assert abs(float(got - textbook)) < 2e-14 * (1 + abs(float(data)))


def test_one_step_is_bayes_rule(path: GaussianPath) -> None:
    """x_s | x_t, x1 from the joint Gaussian of the forward chain x1 → x_s → x_t."""
    t, s = torch.tensor([0.3, 0.62], dtype=torch.float64)
    alpha_t, alpha_s, sigma_t, sigma_s = path.alpha(t), path.alpha(s), path.sigma(t), path.sigma(s)
    ratio = alpha_t / alpha_s
    gain = ratio * sigma_s**2 / sigma_t**2
    (row,) = ddpm().plan(path, torch.stack([t, s])).rows
    assert row.states[0][1] == pytest.approx(float(gain), rel=1e-12)
    assert row.predictions[0][1] == pytest.approx(float(alpha_s - gain * alpha_t), rel=1e-11)
    assert row.noise == pytest.approx(float((sigma_s**2 - gain**2 * sigma_t**2).sqrt()), rel=1e-11)


@pytest.mark.parametrize("variance", VARIANCES)
def test_law_converges_at_weak_order_one(path: GaussianPath, variance: str) -> None:
    low, high = path.span("velocity", {"data"})
    end = torch.tensor(high, dtype=torch.float64)
    exact = path.alpha(end).square() * 0.25 + path.sigma(end).square()
    errors = []
    for steps in (100, 200, 400):
        grid = torch.linspace(low, high, steps + 1, dtype=torch.float64)
        errors.append(float((output_law(ddpm(variance).plan(path, grid), path, 1.0, 0.25)[1] - exact).abs()))
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(0.85 < slope < 1.6 for slope in slopes), (errors, slopes)


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("name", ["linear", "vp", "ve"])
def test_fine_grids_give_the_quantiles_of_a_mixture(paths: dict[str, GaussianPath], name: str, variance: str) -> None:
    path = paths[name]
    pipe = fm.compose(path=path, model=MIXTURE.model(path, "velocity"), solver=ddpm(variance))
    out = pipe.sample((4000, 1), steps=300, seed=0, dtype=torch.float64)
    assert kolmogorov(out.x[:, 0], MIXTURE) < 0.03


def test_noise_of_a_sample_is_its_own(path: GaussianPath) -> None:
    data = GaussianMixture(torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor(0.5))
    pipe = fm.compose(path=path, model=data.model(path, "velocity"), solver=ddpm())
    one = pipe.sample((1, 3, 4, 4), steps=6, seed=3, dtype=torch.float32).x
    four = pipe.sample((4, 3, 4, 4), steps=6, seed=3, dtype=torch.float32, chunk=3).x
    assert four.dtype == torch.float32
    torch.testing.assert_close(one, four[:1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variance", VARIANCES)
def test_a_step_to_the_data_is_without_noise(paths: dict[str, GaussianPath], variance: str) -> None:
    *_, last = ddpm(variance).plan(paths["cosine"], torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)).rows
    assert last.noise == 0.0
    assert last.states == ()
    assert last.predictions == ((1, 1.0),)


@pytest.mark.parametrize("make", [ddpm, lambda: fm.build("solver", "ddpm", variance="beta")])
def test_what_is_declared(make: Callable[[], fm.TableSolver], paths: dict[str, GaussianPath]) -> None:
    solver = make()
    assert (solver.order, solver.evals_per_step, solver.stochastic, solver.needs) == (1, 1, True, {"data"})
    with pytest.raises(TimeError, match=r"stochastic solver cannot invert"):
        solver.solve(MIXTURE.field(paths["linear"]), torch.zeros(1, 1), torch.tensor([0.9, 0.1]))


def test_other_variances_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'posterior'.*'beta'.*got 'learned'"):
        ddpm("learned")  # type: ignore[arg-type]
