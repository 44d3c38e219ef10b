"""Posterior guidance on linear measurements of Gaussian data, where the posterior is known."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from attrs import frozen
from torch import Tensor

import fm_core as fm
from fm_core import Field, GaussianPath, Model, Prediction
from fm_core.plan import Plan, Row
from fm_core.prediction import GAUSSIAN_KINDS
from fm_core.table_solver import TableSolver
from fm_plugins.posterior_guidance.dps import dps
from fm_plugins.posterior_guidance.mmps import mmps
from fm_plugins.posterior_guidance.pigdm import pigdm

KINDS = sorted(GAUSSIAN_KINDS)
SIZE, NOISE = 4, 0.3


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@frozen(eq=False)
class Gaussian:
    """Data N(m, C) of any covariance, with its exact predictions: the networks of this test."""

    mean: Tensor
    covariance: Tensor

    def marginal(self, path: GaussianPath, t: Tensor) -> Tensor:
        """α²·C + σ²·I, `(B, n, n)`."""
        alpha, sigma = path.alpha(t)[:, None, None], path.sigma(t)[:, None, None]
        return alpha**2 * self.covariance + sigma**2 * torch.eye(SIZE, dtype=torch.float64)

    def score(self, path: GaussianPath, x: Tensor, t: Tensor) -> Tensor:
        centred = x - path.alpha(t)[:, None] * self.mean
        return -torch.linalg.solve(self.marginal(path, t), centred)

    def model(self, path: GaussianPath, kind: str) -> Model:
        def net(x: Tensor, t: Tensor) -> Tensor:
            """By the rows of the algebra, from E[x1|x_t] and E[x0|x_t], without a division by α or σ."""
            x, t = x.double(), t.double()
            alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
            score = self.score(path, x, t)
            data, noise = self.mean - alpha * score @ self.covariance, -sigma * score
            match kind:
                case "data":
                    return data
                case "noise":
                    return noise
                case "score":
                    return score
                case "v":
                    return alpha * noise - sigma * data
            return path.d_alpha(t)[:, None] * data + path.d_sigma(t)[:, None] * noise

        return Model(net, kind)

    def given(self, a: Tensor, y: Tensor, noise: float) -> Gaussian:
        """The posterior after y = a·x1 + noise·n (Bishop 2006, equation 2.116)."""
        cross = self.covariance @ a.T
        gain = torch.linalg.solve(a @ cross + noise**2 * torch.eye(len(a), dtype=torch.float64), cross.T).T
        return Gaussian(self.mean + gain @ (y - a @ self.mean), self.covariance - gain @ cross.T)


ROOT = drawn(SIZE, SIZE, seed=1)
FULL = Gaussian(drawn(SIZE, seed=2), ROOT @ ROOT.T / 2 + 0.1 * torch.eye(SIZE, dtype=torch.float64))
UNIT = Gaussian(drawn(SIZE, seed=3), torch.eye(SIZE, dtype=torch.float64))
A, Y = drawn(2, SIZE, seed=4), torch.tensor([1.0, -0.5], dtype=torch.float64)


def measure(x: Tensor) -> Tensor:
    return x @ A.T


def points(path: GaussianPath, src: str, guidance: Any) -> tuple[Tensor, Tensor]:
    """States at four times of the guided field's span, its ends among them."""
    low, high = Field(Model(lambda x, t: x, src), path, (guidance,)).span()
    t = low + (high - low) * torch.tensor([0.0, 0.2, 0.7, 1.0], dtype=torch.float64)
    return path.interpolate(drawn(4, SIZE, seed=5), drawn(4, SIZE, seed=6), t).x_t, t


def close(value: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    """Relative to the largest entry of each sample: scores grow as 1/σ², and cancel as much where they convert."""
    error = (value - expected).abs().amax(1) / expected.abs().amax(1).clamp_min(1.0)
    assert error.max() < tolerance, error


@pytest.mark.parametrize("src", KINDS)
def test_mmps_is_the_posteriors_score_on_gaussian_data(path: GaussianPath, src: str) -> None:
    """Exact at all times and for every kind of network, from one network call."""
    for noise in (NOISE, 0.0):
        guidance = mmps(Y, measure, noise, iterations=2)
        x, t = points(path, src, guidance)
        field = Field(FULL.model(path, src), path, (guidance,))
        close(field.predict(x, t, None, "score"), FULL.given(A, Y, noise).score(path, x, t), 1e-7)
        assert field.calls == 1
        inside = (path.alpha(t) > 0.05) & (path.sigma(t) > 0.05)
        x, t = x[inside], t[inside]
        close(field.predict(x, t, None, "score"), FULL.given(A, Y, noise).score(path, x, t))


@pytest.mark.parametrize("src", KINDS)
def test_pigdm_is_the_posteriors_score_on_data_of_one_variance(path: GaussianPath, src: str) -> None:
    for variance in (1.0, 2.5):
        data = Gaussian(UNIT.mean, variance * UNIT.covariance)
        guidance = pigdm(Y, measure, NOISE, variance=variance)
        x, t = points(path, src, guidance)
        guided = Field(data.model(path, src), path, (guidance,)).predict(x, t, None, "score")
        close(guided, data.given(A, Y, NOISE).score(path, x, t), 1e-9)


@pytest.mark.parametrize("src", KINDS)
def test_dps_is_its_own_formula(path: GaussianPath, src: str) -> None:
    """`Jᵀ·Aᵀ·(y − A·D)/σ_y²` with `J = α·C·(α²·C + σ²·I)⁻¹`."""
    guidance = dps(Y, measure, NOISE)
    x, t = points(path, src, guidance)
    guided = Field(FULL.model(path, src), path, (guidance,)).predict(x, t, None, "score")
    score, alpha = FULL.score(path, x, t), path.alpha(t)[:, None]
    jacobian = alpha[:, :, None] * torch.linalg.solve(FULL.marginal(path, t), FULL.covariance.expand(4, SIZE, SIZE))
    residual = Y - measure(FULL.mean - alpha * score @ FULL.covariance)
    term = torch.einsum("bij,bi->bj", jacobian, residual @ A / NOISE**2)
    close(guided, score + term, 1e-7)  # where α = 1e-6, a noise prediction knows the data to 1e-8


def test_dps_becomes_exact_towards_the_data_and_is_too_strong_before(paths: dict[str, GaussianPath]) -> None:
    """Its error vanishes as σ²: a tenth of the noise leaves a hundredth of it."""
    path, errors = paths["linear"], []
    for sigma in (0.1, 0.01, 0.001):
        t = torch.full((8,), 1 - sigma, dtype=torch.float64)
        x = path.interpolate(drawn(8, SIZE, seed=5), drawn(8, SIZE, seed=6), t).x_t
        own = FULL.score(path, x, t)
        guided = Field(FULL.model(path, "noise"), path, (dps(Y, measure, NOISE),)).predict(x, t, None, "score")
        exact = FULL.given(A, Y, NOISE).score(path, x, t)
        errors.append(((guided - exact).norm() / (exact - own).norm()).item())
    slopes = [math.log10(a / b) for a, b in itertools.pairwise(errors)]
    assert slopes[-1] == pytest.approx(2, abs=0.1)
    t = torch.full((8,), 0.1, dtype=torch.float64)
    x = drawn(8, SIZE)
    own, exact = FULL.score(path, x, t), FULL.given(A, Y, NOISE).score(path, x, t)
    guided = Field(FULL.model(path, "noise"), path, (dps(Y, measure, NOISE),)).predict(x, t, None, "score")
    assert (guided - own).norm() > 3 * (exact - own).norm()


@pytest.mark.parametrize("name", ["linear", "vp", "cosine"])
def test_dps_with_zeta_moves_a_ddim_step_by_the_papers_length(paths: dict[str, GaussianPath], name: str) -> None:
    """`x_s ← x_s − (ζ/‖r‖)·∇‖r‖²`, by the gradient of the whole norm: Algorithm 1 written out."""
    path, zeta = paths[name], 0.37
    t, s = (torch.full((4,), time, dtype=torch.float64) for time in (0.4, 0.55))
    x = drawn(4, SIZE).requires_grad_()
    model = FULL.model(path, "noise")

    def step(data: Tensor, noise: Tensor) -> Tensor:
        return path.alpha(s)[:, None] * data + path.sigma(s)[:, None] * noise

    data, noise = Field(model, path).predict(x, t, None, "data", "noise")
    squared = (Y - measure(data)).square().sum(1)
    (gradient,) = torch.autograd.grad(squared.sum(), x)
    published = step(data, noise) - zeta / squared.sqrt()[:, None] * gradient
    with torch.no_grad():
        field = Field(model, path, (dps(Y, measure, zeta=zeta),))
        mine = step(*field.predict(x.detach(), t, None, "data", "noise", until=s))
    torch.testing.assert_close(mine, published.detach(), rtol=1e-11, atol=1e-11)


def test_one_iteration_is_far_off_and_the_rank_of_a_suffices(paths: dict[str, GaussianPath]) -> None:
    path, t = paths["vp"], torch.full((4,), 0.5, dtype=torch.float64)
    x = drawn(4, SIZE)
    exact = FULL.given(A, Y, NOISE).score(path, x, t)
    errors = []
    for iterations in (1, 2, 3, 8):
        field = Field(FULL.model(path, "noise"), path, (mmps(Y, measure, NOISE, iterations=iterations),))
        errors.append((field.predict(x, t, None, "score") - exact).abs().max().item())
    assert errors[0] > 0.1
    assert max(errors[1:]) < 1e-10


def test_the_noise_end_leaves_the_field_as_it_is(paths: dict[str, GaussianPath]) -> None:
    """At α = 0 the state says nothing about y: no division by α, no term from a network that is not exact there."""
    path, x = paths["linear"], drawn(4, SIZE)
    sloppy = Model(lambda x, t: 3 * x.sin(), "velocity")
    for method in (dps, pigdm, mmps):
        for noise in (NOISE, 1e-3):
            plain = Field(sloppy, path).predict(x, 0.0, None, "score")
            assert torch.equal(Field(sloppy, path, (method(Y, measure, noise),)).predict(x, 0.0, None, "score"), plain)


def ancestral(path: GaussianPath, times: Tensor) -> Plan:
    """x_s drawn from q(x_s | x_t, x1 = D): DDPM's step on any grid."""
    alpha, sigma = path.alpha(times).tolist(), path.sigma(times).tolist()
    rows = []
    for i in range(len(times) - 1):
        ratio = (alpha[i] * sigma[i + 1] / (alpha[i + 1] * sigma[i])) ** 2
        keep = alpha[i] * sigma[i + 1] ** 2 / (alpha[i + 1] * sigma[i] ** 2)
        noise = sigma[i + 1] * math.sqrt(1 - ratio)
        rows.append(Row(float(times[i + 1]), ((i, keep),), ((i, alpha[i + 1] * (1 - ratio)),), noise))
    return Plan(Prediction.DATA, float(times[0]), tuple(rows))


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_the_ode_carries_noise_to_the_posterior(paths: dict[str, GaussianPath], name: str) -> None:
    """Heun's map is affine here, so its mean and covariance come from the images of 0 and of the unit vectors."""
    path, posterior = paths[name], FULL.given(A, Y, NOISE)
    x0 = torch.cat([torch.zeros(1, SIZE, dtype=torch.float64), torch.eye(SIZE, dtype=torch.float64)])
    pipe = fm.compose(
        path=path, model=FULL.model(path, "noise"), solver="heun", guidance=[mmps(Y, measure, NOISE, iterations=2)]
    )
    times = path.t_of_log_snr(torch.linspace(-13.5, 13.5, 60, dtype=torch.float64))
    low, high = Field(pipe.model, path, pipe.guidance).span({Prediction.VELOCITY})
    inner = [t for t in times.tolist() if low + 1e-4 < t < high - 1e-4]
    x = pipe.sample(x0=x0, times=[low, *inner, high], seed=0, dtype=torch.float64).x
    columns = (x[1:] - x[0]).T
    torch.testing.assert_close(x[0], posterior.mean, rtol=0, atol=0.01)
    torch.testing.assert_close(columns @ columns.T, posterior.covariance, rtol=0, atol=0.01)


def test_a_stochastic_solver_samples_the_posterior(paths: dict[str, GaussianPath]) -> None:
    path, posterior, count = paths["cosine"], FULL.given(A, Y, NOISE), 2048
    solver = TableSolver(ancestral, space=Prediction.DATA, order=1, stochastic=True)
    pipe = fm.compose(
        path=path, model=FULL.model(path, "noise"), solver=solver, guidance=[mmps(Y, measure, NOISE, iterations=2)]
    )
    x = pipe.sample((count, SIZE), steps=100, seed=0, dtype=torch.float64).x
    error = (x.mean(0) - posterior.mean) / (posterior.covariance.diagonal() / count).sqrt()
    assert error.abs().max() < 5
    torch.testing.assert_close(x.T.cov(), posterior.covariance, rtol=0, atol=0.08)
