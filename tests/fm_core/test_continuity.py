"""The continuity equation, `∂p_t/∂t + ∇·(p_t·u_t) = 0`: a velocity carries the marginals p_t if and only if it holds.

Pointwise, divided by p_t: `∂log p_t/∂t + ∇·u_t + u_t·∇log p_t = 0`.
Weakly, for every smooth φ: `d/dt ∫φ·p_t = ∫∇φ·u_t·p_t`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fm_core import GaussianPath, Prediction
from fm_core.testing import GaussianMixture

Velocity = Callable[[Tensor, Tensor], Tensor]
Density = Callable[[Tensor, Tensor], Tensor]

TIMES = (0.05, 0.3, 0.6, 0.95)


def residual(log_prob: Density, velocity: Velocity, x: Tensor, t: float) -> Tensor:
    """`∂log p/∂t + ∇·u + u·∇log p` at x `(B, D)`, all by autograd, and relative to the size of its terms."""
    x = x.clone().requires_grad_()
    time = torch.full((x.shape[0],), t, dtype=torch.float64, requires_grad=True)
    score, change = torch.autograd.grad(log_prob(x, time).sum(), (x, time))
    u = velocity(x, time.detach())
    columns = [torch.autograd.grad(u[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(x.shape[1])]
    divergence, transport = torch.stack(columns).sum(0), (u * score).sum(1)
    size = change.abs() + torch.stack(columns).abs().sum(0) + (u * score).abs().sum(1)
    return ((change + divergence + transport) / size).detach()


def mixture(dimension: int, components: int = 3) -> GaussianMixture:
    generator = torch.Generator().manual_seed(dimension)
    means = torch.randn(components, dimension, generator=generator, dtype=torch.float64)
    return GaussianMixture(means, [0.3, 0.7, 0.5][:components], [1.0, 2.0, 3.0][:components])


def points(data: GaussianMixture, path: GaussianPath, t: float, n: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x1 = data(n, generator)
    x0 = torch.randn(x1.shape, generator=generator, dtype=torch.float64)
    return path.interpolate(x0, x1, torch.full((n,), t, dtype=torch.float64)).x_t


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_conditional_velocity_generates_the_conditional_gaussians(path: GaussianPath, dimension: int) -> None:
    """Given x1, `u_t(x|x1)` is the data prediction x1 converted to a velocity, and p_t = N(α·x1, σ²)."""
    x1 = torch.randn(dimension, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def log_prob(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
        return (-0.5 * ((x - alpha * x1) / sigma).square() - sigma.log()).sum(1)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return path.convert(x1.expand_as(x), x, t, src=Prediction.DATA, dst=Prediction.VELOCITY)

    for t in TIMES:
        x = points(GaussianMixture(x1[None], 1e-9), path, t)
        assert residual(log_prob, velocity, x, t).abs().max() < 1e-10


@pytest.mark.parametrize("dimension", [1, 2, 3, 5, 8])
def test_marginal_velocity_generates_the_marginals_of_a_mixture(path: GaussianPath, dimension: int) -> None:
    data = mixture(dimension)
    for t in TIMES:
        error = residual(
            lambda x, time: data.log_prob(path, x, time),
            lambda x, time: data.predict(path, Prediction.VELOCITY, x, time),
            points(data, path, t),
            t,
        )
        assert error.abs().max() < 1e-10


def wrong_fields(data: GaussianMixture, path: GaussianPath) -> dict[str, Velocity]:
    def right(x: Tensor, t: Tensor) -> Tensor:
        return data.predict(path, Prediction.VELOCITY, x, t)

    def frozen_noise(x: Tensor, t: Tensor) -> Tensor:
        return right(x, t) - path.d_sigma(t)[:, None] * data.predict(path, Prediction.NOISE, x, t)

    def late(x: Tensor, t: Tensor) -> Tensor:
        return right(x, t + 0.01)

    return {
        "reversed, as diffusers' sign is": lambda x, t: -right(x, t),
        "without σ'": frozen_noise,
        "of another time": late,
        "two percent fast": lambda x, t: 1.02 * right(x, t),
        "of another mixture": lambda x, t: mixture(x.shape[1], 2).predict(path, Prediction.VELOCITY, x, t),
    }


@pytest.mark.parametrize("dimension", [1, 3])
def test_the_pointwise_check_sees_wrong_fields(path: GaussianPath, dimension: int) -> None:
    data = mixture(dimension)
    x = points(data, path, 0.4)
    for name, velocity in wrong_fields(data, path).items():
        error = residual(lambda x, time: data.log_prob(path, x, time), velocity, x, 0.4)
        assert error.abs().max() > 1e-4, name


# Test functions φ, each with what it makes of points (B, D).
PHI: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x[:, 0],
    "second moment": lambda x: x.square().sum(1),
    "wave": lambda x: torch.sin(1.3 * x[:, 0] - 0.4 * x[:, -1]),
    "bump": lambda x: torch.exp(-(x - 0.5).square().sum(1)),
}


def weak_error(
    data: GaussianMixture, path: GaussianPath, velocity: Velocity, phi: Callable[[Tensor], Tensor], t: float
) -> float:
    """`d/dt ∫φ·p_t − ∫∇φ·u_t·p_t` by the trapezoidal rule, which is nearly exact for what vanishes at the borders."""
    dimension, time = data.means.shape[1], torch.tensor(t, dtype=torch.float64, requires_grad=True)
    alpha, sigma = float(path.alpha(time.detach())), float(path.sigma(time.detach()))
    scale = sigma + 0.7 * alpha
    reach = 8 * scale + 2.5 * alpha
    axis = torch.linspace(-reach, reach, {1: 1001, 2: 241}[dimension], dtype=torch.float64)
    x = torch.cartesian_prod(*[axis] * dimension).reshape(-1, dimension).requires_grad_()
    cell = float(axis[1] - axis[0]) ** dimension
    p = data.log_prob(path, x, time).exp()
    value = phi(x / scale)
    (change,) = torch.autograd.grad((value.detach() * p).sum() * cell, time, retain_graph=True)
    (slope,) = torch.autograd.grad(value.sum(), x)
    flux = ((slope * velocity(x, time.detach().expand(len(x)))).sum(1) * p).sum() * cell
    change, flux, size = change.detach(), flux.detach(), (value.abs() * p).sum().detach() * cell
    return float((change - flux).abs() / (size + change.abs()))


@pytest.mark.parametrize("phi", PHI)
@pytest.mark.parametrize("dimension", [1, 2])
def test_marginal_velocity_moves_every_expectation_as_the_path_does(
    path: GaussianPath, dimension: int, phi: str
) -> None:
    """The weak form, which also sees mass that a pointwise check at samples does not visit."""
    data = mixture(dimension)
    for t in (0.1, 0.7):
        assert weak_error(data, path, lambda x, s: data.predict(path, Prediction.VELOCITY, x, s), PHI[phi], t) < 1e-9


def test_the_weak_check_sees_wrong_fields(path: GaussianPath) -> None:
    data = mixture(1)
    for name, velocity in wrong_fields(data, path).items():
        assert max(weak_error(data, path, velocity, phi, 0.4) for phi in PHI.values()) > 1e-3, name


def test_the_densities_integrate_to_one(path: GaussianPath) -> None:
    """At both ends too; otherwise the weak form would hold for something that is no density."""
    for dimension, count in ((1, 4001), (2, 401)):
        data = mixture(dimension)
        for t in (0.0, 0.5, 1.0):
            time = torch.tensor(t, dtype=torch.float64)
            reach = 9 * math.hypot(float(path.sigma(time)), float(path.alpha(time)))
            axis = torch.linspace(-reach, reach, count, dtype=torch.float64)
            x = torch.cartesian_prod(*[axis] * dimension).reshape(-1, dimension)
            mass = data.log_prob(path, x, time).exp().sum() * (axis[1] - axis[0]) ** dimension
            assert abs(float(mass) - 1) < 1e-9
