"""The closed forms by which everything else is judged, against autograd, conversions, quadrature and draws."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from fm_core import GaussianPath, Prediction
from fm_core.prediction import GAUSSIAN_KINDS
from fm_core.testing import GaussianMixture

KINDS = sorted(GAUSSIAN_KINDS)


def mixture(*event: int) -> GaussianMixture:
    generator = torch.Generator().manual_seed(0)
    return GaussianMixture(torch.randn(3, *event, generator=generator, dtype=torch.float64), [0.2, 0.6, 1.0], [1, 2, 1])


def states(batch: int, *event: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, *event, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.linspace(0.1, 0.9, batch, dtype=dtype)


@pytest.mark.parametrize("shape", [(1, 2), (4, 4), (3, 1, 4, 4)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-3), (torch.float64, 1e-10)], ids=str)
def test_predictions_convert_into_each_other(
    path: GaussianPath, shape: tuple[int, ...], dtype: torch.dtype, tolerance: float
) -> None:
    """Expectations given x_t obey the algebra of the ends."""
    data = mixture(*shape[1:])
    x, t = states(*shape, dtype=dtype)
    exact = {kind: data.predict(path, kind, x, t) for kind in KINDS}
    for src, dst in itertools.product(KINDS, KINDS):
        converted = path.convert(exact[src], x, t, src=src, dst=dst)
        assert (converted.shape, converted.dtype) == (x.shape, dtype)
        m, k = path.affine(t, src, dst)
        scale = 1 + float(m.abs().max()) * float(x.abs().max()) + float(k.abs().max()) * float(exact[src].abs().max())
        torch.testing.assert_close(converted, exact[dst], rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("event", [(1,), (3,), (1, 4, 4)])
def test_score_is_the_gradient_of_log_prob(path: GaussianPath, event: tuple[int, ...]) -> None:
    data = mixture(*event)
    x, t = states(5, *event)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(data.log_prob(path, x, t).sum(), x)
    torch.testing.assert_close(data.predict(path, Prediction.SCORE, x, t), gradient, rtol=1e-10, atol=1e-10)


def test_one_gaussian_is_linear_regression(path: GaussianPath) -> None:
    """E[x1|x_t] = m + α·s²/(α²s² + σ²)·(x_t − α·m), textbook."""
    data = GaussianMixture([[1.5, -2.0]], 0.4)
    x, t = states(6, 2)
    alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
    mean = torch.tensor([1.5, -2.0], dtype=torch.float64)
    gain = alpha * 0.16 / (alpha.square() * 0.16 + sigma.square())
    expected = mean + gain * (x - alpha * mean)
    torch.testing.assert_close(data.predict(path, Prediction.DATA, x, t), expected, rtol=1e-12, atol=1e-12)
    noise = sigma / (alpha.square() * 0.16 + sigma.square()) * (x - alpha * mean)
    torch.testing.assert_close(data.predict(path, Prediction.NOISE, x, t), noise, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "score"])
def test_predictions_are_the_means_over_the_posterior(path: GaussianPath, kind: Prediction) -> None:
    """By quadrature over p(x1|x_t) ∝ p(x1)·N(x_t; α·x1, σ²), without the algebra and without responsibilities."""
    data = GaussianMixture([[-1.0], [0.8]], [0.3, 0.5], [0.3, 0.7])
    t = torch.tensor([0.5], dtype=torch.float64)
    alpha, sigma = path.alpha(t), path.sigma(t)
    x1 = torch.linspace(-5, 6, 20_001, dtype=torch.float64)[:, None]
    prior = sum(w / s * torch.exp(-0.5 * ((x1 - m) / s) ** 2) for w, m, s in ((0.3, -1.0, 0.3), (0.7, 0.8, 0.5)))
    for state in (-0.7, 0.1, 1.1):
        x = torch.full((1, 1), state, dtype=torch.float64)
        x0 = (x - alpha * x1) / sigma
        weight = prior * torch.exp(-0.5 * x0.square())
        sample = path.interpolate(x0, x1, t.expand(len(x1)))
        expected = (weight * path.target(sample, kind)).sum() / weight.sum()
        torch.testing.assert_close(data.predict(path, kind, x, t)[0, 0], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_predictions_are_finite_at_both_ends(path: GaussianPath, dtype: torch.dtype) -> None:
    """Even the score at σ = 0: p_1 is the mixture itself. Only a velocity with σ' = −∞ is not."""
    data, (x, _) = mixture(2), states(4, 2, dtype=dtype)
    for t, kind in itertools.product((0.0, 1.0), KINDS):
        if kind == "velocity" and path.span(Prediction.V, {kind})[int(t)] != t:
            continue
        assert data.predict(path, kind, x, t).isfinite().all(), (t, kind)
    torch.testing.assert_close(
        data.predict(path, Prediction.DATA, x, 1.0) * float(path.alpha(torch.ones(()))), x, atol=0.05, rtol=0
    )


def test_draws_have_the_density_of_log_prob(paths: dict[str, GaussianPath]) -> None:
    """Moments of 20,000 draws within five standard errors, and components as often as their weights say."""
    data = GaussianMixture([[-3.0, 0.0], [2.0, 1.0]], [0.5, 1.0], [1.0, 3.0])
    x1 = data(20_000, torch.Generator().manual_seed(0))
    mean = torch.tensor([0.75, 0.75], dtype=torch.float64)
    second = 0.25 * (torch.tensor([9.0, 0.0]) + 0.25) + 0.75 * (torch.tensor([4.0, 1.0]) + 1.0)
    for moment, expected in ((x1, mean), (x1.square(), second.double())):
        assert ((moment.mean(0) - expected).abs() < 5 * moment.std(0) / 20_000**0.5).all()
    assert abs(float((x1[:, 0] < -1.2).double().mean()) - 0.25) < 0.02
    entropy = -data.log_prob(paths["linear"], x1, 1.0).mean()
    split = -(0.25 * torch.tensor(0.25).log() + 0.75 * torch.tensor(0.75).log())
    gaussians = (
        1 + torch.tensor(2 * torch.pi).log() + 2 * (0.25 * torch.tensor(0.5).log() + 0.75 * torch.tensor(1.0).log())
    )
    assert abs(float(entropy - split - gaussians)) < 0.03  # the components hardly overlap


@pytest.mark.usefixtures("global_rng_untouched")
def test_equal_seeds_draw_equal_samples() -> None:
    data = mixture(1, 2, 2)
    a, b = (data(9, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(a, b)
    assert a.shape == (9, 1, 2, 2)
    assert not torch.equal(data(9), data(9))


def test_a_time_of_lower_precision_than_the_state_means_itself(path: GaussianPath) -> None:
    """The schedule is evaluated in the better of the two dtypes: else responsibilities and means disagree."""
    data, (x, t) = mixture(2), states(4, 2)
    low = t.float()
    for kind in KINDS:
        torch.testing.assert_close(
            data.predict(path, kind, x, low), data.predict(path, kind, x, low.double()), rtol=1e-12, atol=1e-12
        )


def test_the_exact_field_answers_every_kind(path: GaussianPath) -> None:
    data, (x, t) = mixture(2), states(4, 2)
    for predicts in ("data", ("velocity", "noise")):
        field = data.field(path, predicts)
        for kind, value in zip(KINDS, field.predict(x, t, None, *KINDS), strict=True):
            torch.testing.assert_close(value, data.predict(path, kind, x, t), rtol=1e-8, atol=1e-8)
