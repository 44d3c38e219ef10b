"""DDIM: the paper's update on any monotone grid, η as the paper means it, inversion."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core import GaussianPath, TimeError
from fm_core.law import output_law
from fm_core.testing import GaussianMixture
from fm_plugins.ddim.solver import ddim
from fm_plugins.ddpm.solver import ddpm

ETAS = (0.0, 0.2, 0.5, 1.0)
UNEVEN = torch.tensor([0.03, 0.1, 0.11, 0.4, 0.75, 0.93], dtype=torch.float64)
DATA = GaussianMixture(torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0.3, 0.6]))
LINE = GaussianMixture(torch.tensor([[-1.5], [0.2], [1.2]]), torch.tensor([0.3, 0.2, 0.4]))


def by_hand(path: GaussianPath, x: Tensor, grid: Tensor, eta: float, z: list[Tensor]) -> Tensor:
    """Song et al. 2021, equations 12 and 16, on α² = ᾱ, σ² = 1 − ᾱ and beyond: σ_η² = η²·β̃."""
    for (t, s), noise in zip(pairwise(grid), z, strict=True):
        alpha_t, alpha_s, sigma_t, sigma_s = path.alpha(t), path.alpha(s), path.sigma(t), path.sigma(s)
        data = DATA.predict(path, fm.Prediction.DATA, x, t)
        eps = (x - alpha_t * data) / sigma_t
        fresh = eta**2 * (sigma_t**2 - (alpha_t / alpha_s) ** 2 * sigma_s**2) * sigma_s**2 / sigma_t**2
        x = alpha_s * data + (sigma_s**2 - fresh).sqrt() * eps + fresh.sqrt() * noise
    return x


@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("kind", ["noise", "velocity", "data"])
def test_steps_are_the_papers_on_an_uneven_grid(path: GaussianPath, eta: float, kind: str) -> None:
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    z = [torch.randn(x.shape, dtype=x.dtype, generator=generator) if eta else x for _ in UNEVEN[1:]]
    got = ddim(eta).solve(DATA.field(path, kind), x, UNEVEN, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(got, by_hand(path, x, UNEVEN, eta, z), rtol=1e-9, atol=1e-9)


def test_eta_is_that_of_equation_16(paths: dict[str, GaussianPath]) -> None:
    """σ_η = η·√((1 − ᾱ_s)/(1 − ᾱ_t))·√(1 − ᾱ_t/ᾱ_s); two other meanings give other variances."""
    t, s = torch.tensor([0.5, 0.75], dtype=torch.float64)
    bar_t, bar_s = (paths["vp"].alpha(u).square() for u in (t, s))
    expected = 0.5 * ((1 - bar_s) / (1 - bar_t)).sqrt() * (1 - bar_t / bar_s).sqrt()
    (row,) = ddim(0.5).plan(paths["vp"], torch.stack([t, s])).rows
    assert row.noise == pytest.approx(float(expected), rel=1e-12)


def test_eta_one_is_ancestral_sampling(path: GaussianPath) -> None:
    low, high = path.span("velocity", {"data"})
    grid = torch.linspace(low, high, 12, dtype=torch.float64)
    for ours, theirs in zip(ddim(1.0).plan(path, grid).rows, ddpm().plan(path, grid).rows, strict=True):
        assert ours.states == theirs.states
        assert ours.noise == theirs.noise
        assert ours.predictions[0][1] == pytest.approx(theirs.predictions[0][1], rel=1e-12)


def test_deterministic_steps_are_exact_where_the_data_prediction_stands_still(path: GaussianPath) -> None:
    point = GaussianMixture(torch.ones(1, 2), torch.tensor(1e-9))
    x0 = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t, s = torch.tensor([0.1, 0.8], dtype=torch.float64)
    got = ddim().solve(point.field(path, "data"), path.alpha(t) * 1 + path.sigma(t) * x0, torch.stack([t, s]))
    torch.testing.assert_close(got, path.alpha(s) * 1 + path.sigma(s) * x0, rtol=1e-6, atol=1e-6)


def test_falling_grids_invert(path: GaussianPath) -> None:
    x = torch.randn(3, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    field, errors = DATA.field(path, "noise"), []
    for steps in (50, 100, 200):
        grid = torch.linspace(0.2, 0.8, steps + 1, dtype=torch.float64)
        back = ddim().solve(field, ddim().solve(field, x, grid), grid.flip(0))
        errors.append(float((back - x).abs().max()))
    assert all(0.8 < math.log2(a / b) < 1.3 for a, b in pairwise(errors)), errors


@pytest.mark.parametrize("eta", ETAS)
def test_law_converges_at_order_one(path: GaussianPath, eta: float) -> None:
    low, high = path.span("velocity", {"data"})
    end = torch.tensor(high, dtype=torch.float64)
    exact = path.alpha(end).square() * 0.25 + path.sigma(end).square()
    errors = []
    for steps in (100, 200, 400):
        grid = torch.linspace(low, high, steps + 1, dtype=torch.float64)
        errors.append(float((output_law(ddim(eta).plan(path, grid), path, 1.0, 0.25)[1] - exact).abs()))
    assert all(math.log2(a / b) > 0.85 for a, b in pairwise(errors)), errors


@pytest.mark.parametrize("name", ["linear", "vp", "ve"])
def test_fine_grids_give_the_quantiles_of_a_mixture(paths: dict[str, GaussianPath], name: str) -> None:
    pipe = fm.compose(path=paths[name], model=LINE.model(paths[name], "velocity"), solver=ddim(0.5))
    x = pipe.sample((4000, 1), steps=200, seed=0, dtype=torch.float64).x[:, 0].sort().values
    exact = (LINE.weights * torch.distributions.Normal(LINE.means[:, 0], LINE.stds).cdf(x[:, None])).sum(1)
    assert float((exact - (torch.arange(4000) + 0.5) / 4000).abs().max()) < 0.03


def test_noise_of_a_sample_is_its_own(path: GaussianPath) -> None:
    pipe = fm.compose(path=path, model=DATA.model(path, "velocity"), solver=ddim(0.7))
    one = pipe.sample((1, 3, 4, 4), steps=6, seed=3, dtype=torch.float32).x
    four = pipe.sample((4, 3, 4, 4), steps=6, seed=3, dtype=torch.float32, chunk=3).x
    assert four.dtype == torch.float32
    torch.testing.assert_close(one, four[:1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_diffusers_agrees_where_its_grid_is_right(eta: float) -> None:
    """All 1000 indices, where its `prev = t − T//N` is the previous one; the last step goes to ᾱ = 1."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(
        num_train_timesteps=50, clip_sample=False, set_alpha_to_one=True, beta_end=0.1, steps_offset=0
    )
    scheduler.set_timesteps(50)
    bars = torch.cat([scheduler.alphas_cumprod.double().flip(0), torch.ones(1, dtype=torch.float64)])

    class Knots:
        def alpha(self, t: Tensor) -> Tensor:
            return bars[(t * 50).round().long()].sqrt()

        def sigma(self, t: Tensor) -> Tensor:
            return (1 - bars[(t * 50).round().long()]).sqrt()

    path = GaussianPath(Knots())
    plan = ddim(eta).plan(path, torch.linspace(0, 1, 51, dtype=torch.float64))
    x = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for row, k in zip(plan.rows, scheduler.timesteps, strict=True):
        eps = (x + int(k)).sin()
        data = (x - path.sigma(torch.tensor(1 - (int(k) + 1) / 50)) * eps) / bars[49 - int(k)].sqrt()
        z = torch.randn(x.shape, generator=torch.Generator().manual_seed(int(k)), dtype=torch.float64)
        theirs = scheduler.step(eps, k, x, eta=eta, variance_noise=z).prev_sample
        ours = sum(w * x for _, w in row.states) + row.predictions[0][1] * data + row.noise * z
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5)
        x = theirs


def test_what_is_declared() -> None:
    assert not ddim().stochastic
    solver = fm.build("solver", "ddim", eta=0.2)
    assert (solver.order, solver.evals_per_step, solver.stochastic, solver.needs) == (1, 1, True, {"data"})


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_eta_outside_the_unit_interval_is_refused(eta: float) -> None:
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\]"):
        ddim(eta)


@pytest.mark.parametrize("times", [[1.0, 0.5], [0.5, 0.0]])
def test_inversion_from_or_to_the_very_end_is_refused(paths: dict[str, GaussianPath], times: list[float]) -> None:
    with pytest.raises(TimeError, match=r"σ > 0 where a step begins"):
        ddim().plan(paths["linear"], torch.tensor(times, dtype=torch.float64))
