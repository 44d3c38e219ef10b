"""DDPM's path: exact at the knots, smooth and rising between them."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch

import fm_core as fm
from fm_core import Prediction
from fm_core.registry import from_config, to_config
from fm_plugins.ddpm.schedule import betas_of, ddpm
from fm_plugins.score_sde.vp import vp

NAMED = {
    "linear": {},
    "scaled_linear": {"beta_start": 0.00085, "beta_end": 0.012},
    "squared_cosine": {},
}
DIFFUSERS = {"linear": "linear", "scaled_linear": "scaled_linear", "squared_cosine": "squaredcos_cap_v2"}


def knots(n: int) -> torch.Tensor:
    """The times of the indices k = 0 … n − 1."""
    return 1 - (torch.arange(n, dtype=torch.float64) + 1) / n


@pytest.mark.parametrize("betas", NAMED)
@pytest.mark.parametrize("steps", [10, 1000])
def test_knots_are_the_products_of_one_minus_beta(betas: str, steps: int) -> None:
    options = NAMED[betas]
    values = betas_of(betas, steps, **options)
    path, products = ddpm(values.tolist()), np.cumprod(1 - values)
    t = knots(steps)
    np.testing.assert_allclose(path.alpha(t) ** 2, products, rtol=5e-15)
    # 1 − ᾱ = −expm1(Σ log1p(−β)), relative; a rounding of t moves it by 1e-16/(1 − t).
    rest = -np.expm1(np.cumsum(np.log1p(-betas_of(betas, steps, **options))))
    np.testing.assert_allclose(path.sigma(t) ** 2, rest, rtol=5e-12)


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("betas", NAMED)
def test_knots_are_those_of_diffusers(betas: str, zero: bool) -> None:
    """diffusers computes in float32: products of 1000 factors, differences for the rescaling."""
    diffusers = pytest.importorskip("diffusers")
    options = {"beta_start": 1e-4, "beta_end": 0.02} | NAMED[betas]
    scheduler = diffusers.DDPMScheduler(1000, beta_schedule=DIFFUSERS[betas], rescale_betas_zero_snr=zero, **options)
    path = ddpm(betas, 1000, **options, zero_terminal_snr=zero)
    published = scheduler.alphas_cumprod.double()
    torch.testing.assert_close(path.alpha(knots(1000)) ** 2, published, rtol=3e-5, atol=2e-6)
    torch.testing.assert_close(path.sigma(knots(1000)) ** 2, 1 - published, rtol=3e-3, atol=2e-6)


def test_one_step_kernels_make_the_forward_process() -> None:
    """Iterating `x_k = √(1 − β_k)·x_{k−1} + √β_k·ε` gives mean √ᾱ_k·x1 and variance 1 − ᾱ_k: (α, σ²) at every knot."""
    betas = betas_of("linear", 1000)
    mean, variance, means, variances = 1.0, 0.0, [], []
    for beta in betas:
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        means.append(mean)
        variances.append(variance)
    path, t = ddpm(), knots(1000)
    np.testing.assert_allclose(path.alpha(t), means, rtol=2e-13)
    np.testing.assert_allclose(path.sigma(t) ** 2, variances, rtol=5e-12)


@pytest.mark.parametrize("betas", NAMED)
def test_zero_terminal_snr_is_lins_algorithm_1(betas: str) -> None:
    """√ᾱ shifted to 0 at the last index and scaled back at the first; the first is unchanged, the last exactly 0."""
    before, after = (ddpm(betas, zero_terminal_snr=zero, **NAMED[betas]) for zero in (False, True))
    old = before.alpha(knots(1000))
    new = (old - old[-1]) * old[0] / (old[0] - old[-1])
    torch.testing.assert_close(after.alpha(knots(1000)), new, rtol=1e-12, atol=1e-16)
    assert float(after.alpha(torch.tensor(0.0))) == 0.0
    assert float(after.sigma(torch.tensor(0.0))) == 1.0
    assert after.schedule.refused == {Prediction.NOISE, Prediction.SCORE}
    assert before.schedule.refused == frozenset()


@pytest.mark.parametrize("options", [{}, {"betas": "squared_cosine"}, {"zero_terminal_snr": True}])
def test_variance_is_preserved_everywhere(options: dict[str, object]) -> None:
    t = torch.linspace(0, 1, 5001, dtype=torch.float64)
    path = ddpm(**options)
    torch.testing.assert_close(path.alpha(t) ** 2 + path.sigma(t) ** 2, torch.ones_like(t), rtol=0, atol=4e-15)
    assert float(path.alpha(t[-1])) == pytest.approx(1.0, abs=3e-16)
    assert float(path.sigma(t[-1])) == 0.0


def test_the_derivative_is_continuous_at_the_knots() -> None:
    for path, n in ((ddpm(), 1000), (ddpm(betas=[0.02, 0.1, 0.3, 0.25, 0.6, 0.5, 0.9]), 7)):
        t = knots(n)[1:-1]
        for derivative in (path.d_alpha, path.d_sigma):
            torch.testing.assert_close(derivative(t - 1e-12), derivative(t + 1e-12), rtol=1e-6, atol=0)


def test_between_the_knots_it_is_of_fourth_order() -> None:
    """β made from α = sin(πt/2): halving the spacing divides the error between the knots by 16, and that of α' by 8."""
    errors = []
    for n in (20, 40, 80):
        alpha = np.sin(np.pi / 2 * (1 - np.arange(n) / n))
        path = ddpm(betas=list(1 - (alpha[1:] / alpha[:-1]) ** 2))
        m = n - 1  # the last factor would be 0
        t = torch.linspace(0.2, 0.8, 1501, dtype=torch.float64)
        true = 1 - (1 - t) * m / n  # α at index k lies at 1 − (k + 1)/m here
        slope = torch.cos(math.pi / 2 * true) * (math.pi / 2) * (m / n)
        errors.append(
            [
                float((path.alpha(t) - torch.sin(math.pi / 2 * true)).abs().max()),
                float((path.d_alpha(t) - slope).abs().max()),
            ]
        )
    for coarse, fine in itertools.pairwise(errors):
        assert coarse[0] / fine[0] > 14
        assert coarse[1] / fine[1] > 7


def test_many_small_steps_are_the_variance_preserving_path() -> None:
    """With N·β from 0.1 to 20 the path tends to `vp` (Song et al. 2021, appendix B), with an error of order 1/N."""
    t = torch.linspace(0, 1, 201, dtype=torch.float64)
    errors = [
        float((ddpm("linear", n, 0.1 / n, 20 / n).alpha(t) - vp().alpha(t)).abs().max()) for n in (500, 1000, 2000)
    ]
    assert errors[0] < 0.02
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.2)
    assert errors[1] / errors[2] == pytest.approx(2, abs=0.2)


def test_rough_betas_rise_too() -> None:
    """Six orders of magnitude between neighbours: α rises strictly, and the inverse still finds its way."""
    betas = list(10 ** np.random.default_rng(0).uniform(-6, -0.1, 40))
    path, t = ddpm(betas=betas), torch.linspace(0, 1, 4001, dtype=torch.float64)
    assert (path.d_alpha(t) > 0).all()
    log_snr = path.log_snr(t[1:-1])
    assert (log_snr.diff() > 0).all()
    torch.testing.assert_close(path.log_snr(path.t_of_log_snr(log_snr)), log_snr, rtol=1e-9, atol=1e-9)


def test_given_betas_are_saved_and_read_again() -> None:
    path = fm.build("path", "ddpm", betas=[0.1, 0.2, 0.3, 0.4])
    again = from_config("path", json.loads(json.dumps(to_config(path))))
    assert again.schedule == path.schedule
    assert path.span("noise") == (0.0, 0.75)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"betas": "liner"}, "did you mean 'linear'"),
        ({"betas": [0.1, 0.2, 1.0, 0.3]}, "β_2 = 1.0"),
        ({"betas": [0.1, 0.2]}, "at least 4"),
        ({"betas": [0.1] * 4, "steps": 5}, "leave it out"),
        ({"beta_start": -0.1}, "β_0"),
    ],
)
def test_wrong_betas_are_explained(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ddpm(**options)


def test_betas_that_never_reach_noise_are_refused() -> None:
    """At t = 0 the data would still be seen, and samples would start from what the network never saw."""
    with pytest.raises(ValueError, match=r"raise beta_end to about 0\.4"):
        fm.build("path", "ddpm", steps=50)
    fm.build("path", "ddpm", steps=50, beta_end=0.4)
    fm.build("path", "ddpm", betas=[0.01] * 50)  # how a network was trained is not ours to judge
