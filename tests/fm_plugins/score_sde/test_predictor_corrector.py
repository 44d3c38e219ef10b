"""Predictor–corrector: the published steps, norms of each sample alone, honest costs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core import Field, GaussianPath, Model, TimeError
from fm_core.randomness import normal
from fm_core.testing import GaussianMixture
from fm_plugins.score_sde.predictor_corrector import PredictorCorrector, reverse_diffusion_plan

LINE = GaussianMixture(torch.tensor([[-1.5], [0.2], [1.2]]), torch.tensor([0.3, 0.2, 0.4]))
DATA = GaussianMixture(torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0.3, 0.6]))


def test_reverse_diffusion_is_algorithm_2_on_ve(paths: dict[str, GaussianPath]) -> None:
    """x ← x + (σ_t² − σ_s²)·score + √(σ_t² − σ_s²)·z"""
    t, s = torch.tensor([0.3, 0.4], dtype=torch.float64)
    gap = float(paths["ve"].sigma(t) ** 2 - paths["ve"].sigma(s) ** 2)
    (row,) = reverse_diffusion_plan(paths["ve"], torch.stack([t, s])).rows
    assert row.states == ((0, 1.0),)
    assert row.predictions[0][1] == pytest.approx(gap, rel=1e-12)
    assert row.noise == pytest.approx(math.sqrt(gap), rel=1e-12)


def test_reverse_diffusion_is_algorithm_3_on_vp(paths: dict[str, GaussianPath]) -> None:
    """x ← (2 − √(1 − β))·x + β·score + √β·z, with 1 − β = ᾱ_t/ᾱ_s"""
    t, s = torch.tensor([0.3, 0.4], dtype=torch.float64)
    beta = 1 - float(paths["vp"].alpha(t) ** 2 / paths["vp"].alpha(s) ** 2)
    (row,) = reverse_diffusion_plan(paths["vp"], torch.stack([t, s])).rows
    assert row.states[0][1] == pytest.approx(2 - math.sqrt(1 - beta), rel=1e-12)
    assert row.predictions[0][1] == pytest.approx(beta, rel=1e-12)
    assert row.noise == pytest.approx(math.sqrt(beta), rel=1e-12)


@pytest.mark.parametrize("length", [0.2, 3.0], ids=["short", "long"])
@pytest.mark.parametrize("times", [[0.3, 0.4, 0.6], [0.3, 0.4]], ids=["inner", "last"])
def test_corrector_is_algorithm_5_with_the_norm_of_each_sample(
    path: GaussianPath, length: float, times: list[float]
) -> None:
    """ε = 2a·(snr·ζ/‖g‖)², a = α_s²/α_{s'}², s' the next time or as far again; ‖g‖ is ζ/σ at least, ζ = √D + 2."""
    grid, snr = torch.tensor(times, dtype=torch.float64), 0.2
    noises = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    noises = length * noises * torch.tensor([1.0, 1.5]).reshape(2, 1, 1, 1)
    field = Field(Model(lambda x, t: noises, "noise"), path)

    class Still:
        needs, order, evals_per_step = frozenset[fm.Prediction](), 1, 0

        def solve(self, field: Field, x: Tensor, times: Tensor, **_: object) -> Tensor:
            return x

    solver = PredictorCorrector(Still(), snr=snr)  # type: ignore[arg-type]
    states: list[Tensor] = []
    x = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    solver.solve(field, x, grid, generator=torch.Generator().manual_seed(1), on_step=lambda t, y: states.append(y))
    z = normal(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    sigma, alpha = path.sigma(grid[1]), path.alpha(grid[1])
    after = path.alpha(grid[2] if len(grid) > 2 else 2 * grid[1] - grid[0])
    longest = math.sqrt(48) + 2
    for i in range(2):
        score = -noises[i] / sigma
        step = 2 * (alpha / after * snr * longest / max(float(score.norm()), longest / float(sigma))) ** 2
        torch.testing.assert_close(states[1][i], step * score + (2 * step).sqrt() * z[i], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("predictor", [None, {"kind": "solver", "name": "ddpm"}, {"kind": "solver", "name": "heun"}])
@pytest.mark.parametrize("steps", [0, 2])
def test_costs_are_declared(paths: dict[str, GaussianPath], predictor: dict[str, str] | None, steps: int) -> None:
    solver = fm.registry.from_config(
        "solver", {"name": "predictor_corrector", "predictor": predictor, "corrector_steps": steps}
    )
    each = steps + (2 if predictor and predictor["name"] == "heun" else 1)
    assert solver.evals_per_step == each
    assert solver.stochastic
    assert "score" in solver.needs
    pipe = fm.compose(path=paths["vp"], model=LINE.model(paths["vp"], "velocity"), solver=solver)
    assert pipe.sample((2, 1), steps=5, seed=0, dtype=torch.float64).nfe == 5 * each + 1
    assert pipe.sample((2, 1), nfe=5 * each + 1, seed=0, dtype=torch.float64).nfe == 5 * each + 1


@pytest.mark.parametrize("name", ["linear", "vp", "ve"])
@pytest.mark.parametrize("predictor", [None, "ddpm"])
def test_fine_grids_give_the_quantiles_of_a_mixture(
    paths: dict[str, GaussianPath], name: str, predictor: str | None
) -> None:
    solver = PredictorCorrector(fm.build("solver", predictor) if predictor else None, snr=0.1)
    pipe = fm.compose(path=paths[name], model=LINE.model(paths[name], "velocity"), solver=solver)
    x = pipe.sample((4000, 1), steps=150, seed=0, dtype=torch.float64).x[:, 0].sort().values
    exact = (LINE.weights * torch.distributions.Normal(LINE.means[:, 0], LINE.stds).cdf(x[:, None])).sum(1)
    assert float((exact - (torch.arange(4000) + 0.5) / 4000).abs().max()) < 0.035


def test_corrector_repairs_what_the_predictor_leaves(paths: dict[str, GaussianPath]) -> None:
    """Wrong states (twice too wide) at a time near the data, no predictor to speak of: Langevin alone narrows them."""
    path, data = paths["vp"], GaussianMixture(torch.zeros(1, 8), torch.tensor(1.0))
    x = 2 * torch.randn(2000, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([0.2, 0.2001], dtype=torch.float64)
    solver = PredictorCorrector(corrector_steps=150)
    got = solver.solve(data.field(path, "noise"), x, times, generator=torch.Generator().manual_seed(1))
    assert float(got.var()) == pytest.approx(1 / (1 - 0.16**2), abs=0.03)


@pytest.mark.parametrize("predictor", [None, "ddim", "ddpm"])
def test_samples_depend_on_no_neighbour(path: GaussianPath, predictor: str | None) -> None:
    solver = PredictorCorrector(fm.build("solver", predictor) if predictor else None, corrector_steps=2)
    pipe = fm.compose(path=path, model=DATA.model(path, "velocity"), solver=solver)
    four = pipe.sample((4, 3, 4, 4), steps=6, seed=3, dtype=torch.float64).x
    for chunk in (1, 3):
        got = pipe.sample((4, 3, 4, 4), steps=6, seed=3, dtype=torch.float64, chunk=chunk).x
        torch.testing.assert_close(got, four, rtol=1e-9, atol=1e-9)
    one, two = (pipe.sample((n, 3, 4, 4), steps=6, seed=3, dtype=torch.float32).x for n in (1, 2))
    assert one.dtype == torch.float32
    torch.testing.assert_close(one, two[:1], rtol=1e-3, atol=1e-3)


def test_nothing_is_corrected_where_there_is_no_noise(paths: dict[str, GaussianPath]) -> None:
    solver, field = PredictorCorrector(), LINE.field(paths["linear"], "velocity")
    x = torch.randn(3, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([0.9, 1.0], dtype=torch.float64)
    assert torch.equal(
        solver.solve(field, x, times, generator=torch.Generator().manual_seed(1)),
        solver.predictor.solve(field, x, times, generator=torch.Generator().manual_seed(2)),
    )


def test_falling_grids_and_wrong_options_are_refused(paths: dict[str, GaussianPath]) -> None:
    with pytest.raises(TimeError, match=r"stochastic solver cannot invert"):
        PredictorCorrector().solve(LINE.field(paths["vp"]), torch.zeros(1, 1), torch.tensor([0.9, 0.1]))
    for options in ({"corrector_steps": -1}, {"snr": 0.0}, {"snr": 1.0}):
        with pytest.raises(ValueError, match=r"corrector_steps|snr"):
            PredictorCorrector(**options)  # type: ignore[arg-type]
