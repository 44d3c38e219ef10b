"""Editing: samples from data that were noised to a time `start`, and denoised again by any solver."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core import GaussianPath, Prediction
from fm_core.plan import Plan, Row
from fm_core.table_solver import TableSolver
from fm_core.testing import GaussianMixture
from fm_plugins.inpainting.inpaint import Inpaint

MEAN, STD = torch.tensor([1.0, -0.5], dtype=torch.float64), 0.6
DATA = GaussianMixture(MEAN[None], STD)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ancestral(path: GaussianPath, times: Tensor) -> Plan:
    """x_s drawn from q(x_s | x_t, x1 = D): DDPM's step on any grid."""
    alpha, sigma = path.alpha(times).tolist(), path.sigma(times).tolist()
    rows = []
    for i in range(len(times) - 1):
        ratio = (alpha[i] * sigma[i + 1] / (alpha[i + 1] * sigma[i])) ** 2
        keep = alpha[i] * sigma[i + 1] ** 2 / (alpha[i + 1] * sigma[i] ** 2)
        noise = sigma[i + 1] * (1 - ratio) ** 0.5
        rows.append(Row(float(times[i + 1]), ((i, keep),), ((i, alpha[i + 1] * (1 - ratio)),), noise))
    return Plan(Prediction.DATA, float(times[0]), tuple(rows))


SDE = TableSolver(ancestral, space=Prediction.DATA, order=1, stochastic=True)


@pytest.mark.parametrize("name", ["linear", "cosine", "vp"])
def test_the_ode_carries_noised_data_along_its_own_flow(paths: dict[str, GaussianPath], name: str) -> None:
    """On a Gaussian the flow is affine: x_t ↦ `m + s·(x_t − α·m)/√(α²·s² + σ²)`, for data of any law."""
    path, start = paths[name], torch.tensor(0.4, dtype=torch.float64)
    x1, x0 = drawn(64, 2, seed=3) + 4.0, drawn(64, 2)
    pipe = fm.compose(path=path, model=DATA.model(path, "noise"), solver="rk4")
    x = pipe.sample(x1=x1, x0=x0, start=0.4, steps=40, seed=0, dtype=torch.float64).x
    alpha, sigma = path.alpha(start), path.sigma(start)
    x_t = alpha * x1 + sigma * x0
    end = MEAN + STD * (x_t - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2).sqrt()
    torch.testing.assert_close(x, end, rtol=0, atol=5e-3)


@pytest.mark.parametrize("solver", ["heun", SDE], ids=["ode", "sde"])
@pytest.mark.parametrize("start", [0.2, 0.6])
def test_edited_data_keep_their_law(paths: dict[str, GaussianPath], solver: object, start: float) -> None:
    """Noised data of the law p are states of p_t, and any solver takes these back to p."""
    path, count = paths["cosine"], 4096
    x1 = DATA(count, torch.Generator().manual_seed(0))
    pipe = fm.compose(path=path, model=DATA.model(path, "noise"), solver=solver)
    x = pipe.sample(x1=x1, start=start, steps=100, seed=1, dtype=torch.float64).x
    assert ((x.mean(0) - MEAN) / (STD / count**0.5)).abs().max() < 4.5
    torch.testing.assert_close(x.T.cov(), STD**2 * torch.eye(2).double(), rtol=0, atol=0.03)


@pytest.mark.parametrize("start", [0.2, 0.6])
def test_the_sde_forgets_as_much_as_the_noise_covered(paths: dict[str, GaussianPath], start: float) -> None:
    """Its output is a draw from p(x1|x_t), so Cov[x, x1] = s²·α²s²/(α²s² + σ²): what noising left."""
    path, count, t = paths["cosine"], 4096, torch.tensor(start, dtype=torch.float64)
    x1 = DATA(count, torch.Generator().manual_seed(0))
    pipe = fm.compose(path=path, model=DATA.model(path, "noise"), solver=SDE)
    x = pipe.sample(x1=x1, start=start, steps=100, seed=1, dtype=torch.float64).x
    alpha, sigma = float(path.alpha(t)), float(path.sigma(t))
    expected = STD**2 * alpha**2 * STD**2 / (alpha**2 * STD**2 + sigma**2)
    covariance = ((x - x.mean(0)) * (x1 - x1.mean(0))).mean(0)
    torch.testing.assert_close(covariance, torch.full((2,), expected).double(), rtol=0, atol=0.03)


@pytest.mark.parametrize("solver", ["euler", "heun", SDE], ids=["euler", "heun", "sde"])
def test_little_noise_returns_the_data(paths: dict[str, GaussianPath], solver: object) -> None:
    """The change vanishes in proportion to the noise σ(start)."""
    path, x1, changes = paths["linear"], DATA(64, torch.Generator().manual_seed(0)), []
    pipe = fm.compose(path=path, model=DATA.model(path, "noise"), solver=solver)
    for strength in (0.1, 0.01, 0.002):
        x = pipe.sample(x1=x1, start=1 - strength, steps=4, seed=0, dtype=torch.float64).x
        changes.append((x - x1).abs().mean().item() / strength)
    assert max(changes) < 2.0


def test_editing_and_inpainting_join(paths: dict[str, GaussianPath]) -> None:
    """The kept part comes back, the rest is edited."""
    path, x1 = paths["linear"], DATA(8, torch.Generator().manual_seed(0))
    keep = torch.tensor([True, False])
    pipe = fm.compose(path=path, model=DATA.model(path, "noise"), solver="heun", guidance=[Inpaint(x1, keep)])
    x = pipe.sample(x1=x1, start=0.3, steps=10, seed=0, chunk=3, dtype=torch.float64).x
    torch.testing.assert_close(x[:, 0], x1[:, 0], rtol=0, atol=1e-12)
    assert (x[:, 1] - x1[:, 1]).abs().min() > 1e-6
