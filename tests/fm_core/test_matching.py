"""Regression on conditional values has the gradient of the one nobody can compute (Lipman et al. 2023, Theorem 2)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fm_core import Field, GaussianPath, Matching, Model, Prediction
from fm_core.prediction import GAUSSIAN_KINDS
from fm_core.testing import GaussianMixture
from fm_plugins.cfm.objective import cfm

ONE = GaussianMixture([[0.7]], 0.5)
TWO = GaussianMixture([[-1.0], [1.0]], [0.8, 0.6], [0.4, 0.6])


def small_network() -> nn.Module:
    net = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    return net


def by_network(net: nn.Module, path: GaussianPath) -> Callable[[Tensor, Tensor], Tensor]:
    """The network on states of unit scale, smooth enough for the quadrature."""
    return lambda x, t: net(torch.stack([x[:, 0] / torch.hypot(path.alpha(t), path.sigma(t)), t], 1))


def quadrature(data: GaussianMixture, nodes: int = 90) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Points x0, x1 `(n, 1)` and weights `(n, 1)` of E over source and data, by Gauss–Hermite for each component."""
    z, w = (torch.from_numpy(values) for values in np.polynomial.hermite_e.hermegauss(nodes))
    w = w / w.sum()
    x0, standard = torch.cartesian_prod(z, z).unbind(1)
    for mean, std, weight in zip(data.means[:, 0], data.stds, data.weights):
        yield x0[:, None], (mean + std * standard)[:, None], weight * torch.outer(w, w).reshape(-1, 1)


def losses_and_gradients(
    data: GaussianMixture, path: GaussianPath, kind: Prediction, t: float
) -> list[tuple[float, Tensor]]:
    """Loss and gradient of the regression on the conditional and on the marginal value, in expectation at one time."""
    net = small_network()
    field = Field(Model(by_network(net, path), kind), path)
    loss, marginal = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for x0, x1, weight in quadrature(data):
        sample = path.interpolate(x0, x1, torch.full((len(x0),), t, dtype=torch.float64))
        loss = loss + (weight[:, 0] * Matching(kind).loss(field, sample)).sum()
        exact = data.predict(path, kind, sample.x_t, sample.t)
        marginal = marginal + (weight * (field.predict(sample.x_t, sample.t, None, kind) - exact).square()).sum()
    return [
        (float(value.detach()), torch.cat([g.flatten() for g in torch.autograd.grad(value, list(net.parameters()))]))
        for value in (loss, marginal)
    ]


@pytest.mark.parametrize("data", [ONE, TWO], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("kind", sorted(GAUSSIAN_KINDS))
def test_conditional_and_marginal_regression_have_one_gradient(
    path: GaussianPath, kind: Prediction, data: GaussianMixture
) -> None:
    """Deterministic: by quadrature over (x0, x1). Only the value differs, by the variance that no network explains."""
    for t in (0.2, 0.6):
        (conditional, gradient), (marginal, expected) = losses_and_gradients(data, path, kind, t)
        assert gradient.abs().max() > 1e-3
        torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-8)
        assert conditional - marginal > 1e-4


def test_the_gap_between_the_losses_is_the_unexplained_variance(paths: dict[str, GaussianPath]) -> None:
    """E Var(u | x_t) of a Gaussian on the linear path: (s² + 1) − (α·s² − σ)²/(α²s² + σ²)."""
    t, s2 = 0.6, 0.25
    (conditional, _), (marginal, _) = losses_and_gradients(ONE, paths["linear"], Prediction.VELOCITY, t)
    gap = (s2 + 1) - (t * s2 - (1 - t)) ** 2 / (t**2 * s2 + (1 - t) ** 2)
    assert conditional - marginal == pytest.approx(gap, rel=1e-10)


def test_a_wrong_marginal_field_has_another_gradient(paths: dict[str, GaussianPath]) -> None:
    """The check above can fail: the marginal of the other data set does not do."""
    path, kind = paths["linear"], Prediction.VELOCITY
    (_, gradient), _ = losses_and_gradients(TWO, path, kind, 0.6)
    _, (_, other) = losses_and_gradients(ONE, path, kind, 0.6)
    assert (gradient - other).abs().max() > 1e-2


@pytest.mark.parametrize("shape", [(1, 2), (4, 4), (3, 1, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_loss_is_the_mean_square_over_the_event_for_each_sample(
    path: GaussianPath, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    x0, x1 = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    t = torch.linspace(0.2, 0.8, shape[0], dtype=dtype)
    sample = path.interpolate(x0, x1, t)
    field = Field(Model(lambda x, t: torch.zeros_like(x), "velocity"), path)
    loss = cfm().loss(field, sample)
    assert (loss.shape, loss.dtype) == ((shape[0],), dtype)
    velocity = path.target(sample, Prediction.VELOCITY)
    torch.testing.assert_close(loss, torch.stack([v.square().mean() for v in velocity]))


@pytest.mark.parametrize(("src", "dst"), list(itertools.product(["data", "noise", "v"], ["velocity", "noise"])))
def test_a_weight_of_k_squared_trains_one_kind_as_the_other(paths: dict[str, GaussianPath], src: str, dst: str) -> None:
    """w_src = k²·w_dst: a network of `src` under the loss of `dst` is one under its own loss with that weight."""
    path = paths["vp"]
    x0, x1 = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sample = path.interpolate(x0, x1, torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=torch.float64))
    field = Field(Model(lambda x, t: x.sin(), src), path)

    def weight(path: Any, t: Tensor) -> Tensor:
        return path.affine(t, Prediction(src), Prediction(dst))[1].square()

    own = Matching(src, weight=weight).loss(field, sample)
    torch.testing.assert_close(own, Matching(dst).loss(field, sample), rtol=1e-9, atol=1e-12)


def test_times_are_uniform_in_the_span_and_come_from_the_generator(path: GaussianPath) -> None:
    for kind in GAUSSIAN_KINDS:
        t, again = (
            Matching(kind).sample_time(path, 20_000, generator=torch.Generator().manual_seed(0)) for _ in range(2)
        )
        low, high = path.span(kind, {kind})
        assert torch.equal(t, again)
        assert t.shape == (20_000,)
        assert low - 1e-7 <= t.min() < t.max() <= high + 1e-7
        assert abs(float(t.mean()) - (low + high) / 2) < 0.01
        assert abs(float(t.var()) - (high - low) ** 2 / 12) < 0.002


def test_a_time_sampler_of_ones_own_is_given_the_span(paths: dict[str, GaussianPath]) -> None:
    def ends(path: Any, batch: int, span: tuple[float, float], generator: Any, device: Any) -> Tensor:
        return torch.linspace(*span, batch, device=device)

    t = Matching("data", time=ends).sample_time(paths["linear"], 3)
    torch.testing.assert_close(t, torch.tensor([0.0, 0.4995, 0.999]))
    assert Matching("eps").needs == {"noise"}


def test_times_stay_where_the_weight_exists(paths: dict[str, GaussianPath]) -> None:
    """The likelihood's weight on v is infinite where σ = 0, where v itself is known."""
    assert paths["cosine"].span("v", {Prediction.V}) == (0.0, 1.0)
    for name in ("cosine", "vp", "linear"):
        objective = Matching("v", weight="likelihood", time=lambda path, n, span, g, d: torch.tensor(span))
        t = objective.sample_time(paths[name], 2)
        torch.testing.assert_close(t, torch.tensor([0.0, 0.999]))
        assert objective.weight(paths[name], t, Prediction.V).isfinite().all()
        assert objective.needs == {"v"}
