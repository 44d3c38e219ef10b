"""Denoising score matching learns the score: Vincent's equivalence, and Hyvärinen's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fm_core as fm
from fm_core import Field, GaussianPath, Model, Prediction
from fm_core.testing import GaussianMixture
from fm_plugins.dsm.objective import dsm

DATA = GaussianMixture([[-1.0], [0.8]], [0.4, 0.6], [0.4, 0.6])


def network() -> nn.Module:
    net = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.7, generator=generator)
    return net


def quadrature(nodes: int = 100) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """x0, x1 `(n, 1)` and weights `(n,)` of the expectation over noise and data."""
    z, w = (torch.from_numpy(values) for values in np.polynomial.hermite_e.hermegauss(nodes))
    w = w / w.sum()
    x0, standard = torch.cartesian_prod(z, z).unbind(1)
    for mean, std, weight in zip(DATA.means[:, 0], DATA.stds, DATA.weights, strict=True):
        yield x0[:, None], (mean + std * standard)[:, None], weight * torch.outer(w, w).flatten()


def gradient(loss: Tensor, net: nn.Module) -> Tensor:
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()), allow_unused=True) if g is not None]
    )


@pytest.mark.parametrize(("name", "sigma"), [("ve", 0.3), ("ve", 1.5), ("vp", 0.3), ("cosine", 0.8)])
def test_its_gradient_is_that_of_explicit_score_matching(name: str, sigma: float) -> None:
    """Vincent 2011, appendix: against the true score of the smoothed density, λ = σ²; and, by parts, against
    Hyvärinen's `E[½·s² + s']`, which knows neither score.
    """
    path: GaussianPath = fm.build("path", name)
    net, objective = network(), dsm(sigma=sigma)
    t = objective.sample_time(path, 1).double()
    field = Field(Model(lambda x, t: net(x), "score"), path)
    denoising = explicit = implicit = torch.zeros((), dtype=torch.float64)
    for x0, x1, weight in quadrature():
        sample = path.interpolate(x0, x1, t.expand(len(x0)))
        denoising = denoising + (weight * objective.loss(field, sample)).sum()
        score = DATA.predict(path, Prediction.SCORE, sample.x_t, sample.t)
        explicit = explicit + (weight * (net(sample.x_t) - score).square()[:, 0]).sum()
        x = sample.x_t.detach().requires_grad_()
        (slope,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        implicit = implicit + 2 * (weight * (0.5 * net(x).square() + slope)[:, 0]).sum()
    scale = float(path.sigma(t).square())
    found = gradient(denoising, net)
    assert found.abs().max() > 1e-2
    torch.testing.assert_close(found, scale * gradient(explicit, net), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found, scale * gradient(implicit, net), rtol=1e-8, atol=1e-8)
    assert float(denoising.detach()) > scale * float(explicit.detach()) + 1e-3


def test_one_noise_level_is_vincents_loss_but_for_sigma_squared() -> None:
    """`‖s(x̃) − (x − x̃)/σ²‖²` at x̃ = x + σ·ε, times σ²; where α ≠ 1 the state is α·x̃ and its score that of x̃ over α."""
    for name in ("ve", "edm", "vp"):
        path = fm.build("path", name)
        objective = dsm(sigma=0.3)
        t = objective.sample_time(path, 5).double()
        eps, x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        alpha = path.alpha(t)[:, None]
        noisy = x + 0.3 * eps
        field = Field(Model(lambda x_t, t: x_t.sin(), "score"), path)
        vincent = (alpha * (alpha * noisy).sin() - (x - noisy) / 0.09).square().mean(1)
        loss = objective.loss(field, path.interpolate(eps, x, t))
        torch.testing.assert_close(loss, 0.09 * vincent, rtol=1e-5, atol=0)  # the level is met to float32


def test_lambda_sigma_squared_is_the_noise_loss() -> None:
    path = fm.build("path", "vp")
    x0, x1 = torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sample = path.interpolate(x0, x1, torch.linspace(0.1, 0.9, 6, dtype=torch.float64))
    field = Field(Model(lambda x, t: x.cos(), "noise"), path)
    noise_loss = fm.build("objective", "ddpm").loss(field, sample)
    torch.testing.assert_close(dsm().loss(field, sample), noise_loss, rtol=1e-12, atol=1e-14)


def test_a_small_network_learns_the_score_of_a_mixture() -> None:
    model = fm.Model(fm.build("model", "mlp", shape=1, width=32, depth=2, seed=0), predicts="noise")
    pipe = fm.compose(path="vp", objective="dsm", model=model)
    fitted = pipe.fit(lambda n, g: DATA(n, g).float(), steps=300, batch_size=256, lr=5e-3, seed=0).pipeline
    field = Field(fitted.model, fitted.path)
    x = torch.linspace(-2, 2, 41)[:, None]
    for t in (0.5, 0.8):
        time = torch.full((41,), t)
        learned, exact = field.predict(x, time, None, "score"), DATA.predict(fitted.path, Prediction.SCORE, x, time)
        density = DATA.log_prob(fitted.path, x, time).exp()
        error = (density * (learned - exact).square()[:, 0]).sum() / (density * exact.square()[:, 0]).sum()
        assert float(error.detach()) < 0.1


def test_a_level_and_times_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="leave one of them out"):
        dsm(sigma=0.3, time="uniform")
    assert fm.build("objective", "dsm").kind == "score"
