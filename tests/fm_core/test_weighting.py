"""Weights of a loss: what each means on the kind it was published for, and that it is the same on every other kind."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core import Field, GaussianPath, Matching, Model, Prediction
from fm_core.errors import PredictionError, UnknownNameError
from fm_core.prediction import GAUSSIAN_KINDS
from fm_core.weighting import Weighting, as_weighting

NAMES: list[Any] = [
    "simple",
    "snr",
    "truncated_snr",
    "snr_plus_one",
    {"name": "min_snr", "gamma": 3.0},
    {"name": "edm", "sigma_data": 0.4},
    {"name": "sigmoid", "bias": -1.0},
    {"name": "sigmoid", "bias": 2.0, "per": "time"},
    "likelihood",
]
T = torch.linspace(0.02, 0.98, 33, dtype=torch.float64)


def weight(name: Any, path: GaussianPath, kind: str, t: Tensor = T) -> Tensor:
    return as_weighting(name)(path, t, Prediction(kind))


def snr(path: GaussianPath, t: Tensor = T) -> Tensor:
    return (path.alpha(t) / path.sigma(t)).square()


def close(value: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("weighting", NAMES, ids=str)
def test_one_network_has_one_loss_whatever_is_matched(weighting: Any, path: GaussianPath) -> None:
    """The k² rule: value and gradient are the same to rounding for all five kinds, whatever the network predicts."""
    x0, x1 = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sample = path.interpolate(x0, x1, torch.linspace(0.1, 0.9, 6, dtype=torch.float64))
    for predicts in ("data", "noise", "velocity"):
        found = []
        for kind in sorted(GAUSSIAN_KINDS):
            parameter = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)
            field = Field(Model(lambda x, t, p=parameter: torch.tanh(x * p) + p, predicts), path)
            loss = Matching(kind, weight=weighting).loss(field, sample)
            (gradient,) = torch.autograd.grad(loss.sum(), parameter)
            found.append(torch.cat([loss.detach(), gradient]))
        for other in found[1:]:
            torch.testing.assert_close(other, found[0], rtol=1e-8, atol=1e-10 * float(found[0].abs().max()))


def test_the_rule_is_that_of_the_algebra(path: GaussianPath) -> None:
    """`w_src = k²·w_dst` with the k of `fm_core.prediction.affine`."""
    for src in GAUSSIAN_KINDS:
        for dst in GAUSSIAN_KINDS:
            _, k = path.affine(T, src, dst)
            close(Weighting(dst, lambda path, t: 2 + t)(path, T, src), k.square() * (2 + T))


def test_signal_to_noise_weights_are_salimans_and_hos(path: GaussianPath) -> None:
    close(weight("snr", path, "data"), snr(path))
    close(weight("snr", path, "noise"), torch.ones_like(T))
    close(weight("truncated_snr", path, "data"), snr(path).clamp(min=1))
    close(weight("snr_plus_one", path, "data"), snr(path) + 1)


def test_snr_plus_one_is_uniform_on_v_of_a_variance_preserving_path(paths: dict[str, GaussianPath]) -> None:
    for name in ("vp", "cosine"):
        close(weight("snr_plus_one", paths[name], "v"), torch.ones_like(T))


def test_min_snr_is_hangs_on_every_kind(paths: dict[str, GaussianPath]) -> None:
    """min(SNR, γ) on the data, min(SNR, γ)/SNR on the noise, min(SNR, γ)/(SNR + 1) on v."""
    path, name = paths["vp"], {"name": "min_snr", "gamma": 5.0}
    clipped = snr(path).clamp(max=5.0)
    close(weight(name, path, "data"), clipped)
    close(weight(name, path, "noise"), clipped / snr(path))
    close(weight(name, path, "v"), clipped / (snr(path) + 1))


def test_edm_is_karras_on_the_data(path: GaussianPath) -> None:
    level = path.sigma(T) / path.alpha(T)
    close(weight({"name": "edm", "sigma_data": 0.4}, path, "data"), (level**2 + 0.16) / (level * 0.4) ** 2)


def test_score_weights_are_the_noise_levels(path: GaussianPath) -> None:
    """`simple` is λ = σ² on the score, `likelihood` is g², the library's default noise of the SDE."""
    close(weight("simple", path, "score"), path.sigma(T).square())
    speed = path.d_alpha(T) / path.alpha(T) - path.d_sigma(T) / path.sigma(T)
    close(weight("likelihood", path, "score"), 2 * path.sigma(T).square() * speed)


def test_sigmoid_is_kingma_and_gaos(path: GaussianPath) -> None:
    log_snr = path.log_snr(T)
    bare = weight({"name": "sigmoid", "bias": 1.5, "per": "time"}, path, "noise")
    close(bare, torch.sigmoid(1.5 - log_snr))
    d_log_snr = torch.func.grad(lambda t: path.log_snr(t).sum())(T)
    close(weight({"name": "sigmoid", "bias": 1.5}, path, "noise"), torch.sigmoid(1.5 - log_snr) * d_log_snr)


def test_sigmoid_per_log_snr_is_one_integral_for_every_path(paths: dict[str, GaussianPath]) -> None:
    """`∫ w(t)·f(λ(t)) dt = ∫ sigmoid(b − λ)·f(λ) dλ`, whatever the speed of the path, for a bump f."""
    lam = torch.linspace(-6, 6, 4001, dtype=torch.float64)

    def bump(x: Tensor) -> Tensor:
        return torch.exp(-((x - 0.5) ** 2) / 0.8)

    expected = float(torch.trapezoid(torch.sigmoid(1 - lam) * bump(lam), lam))
    t = torch.linspace(1e-4, 1 - 1e-4, 20_001, dtype=torch.float64)
    for path in paths.values():
        w = weight({"name": "sigmoid", "bias": 1.0}, path, "noise", t)
        assert float(torch.trapezoid(w * bump(path.log_snr(t)), t)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", NAMES, ids=str)
@pytest.mark.parametrize("kind", sorted(GAUSSIAN_KINDS))
def test_weights_are_finite_at_both_ends_of_the_span(name: Any, kind: str, path: GaussianPath) -> None:
    """0·∞ and 0/0 lurk where α or σ is 0 and the kind is known there nevertheless."""
    objective = Matching(kind, weight=name, time=lambda path, n, span, g, d: torch.tensor(span))
    for dtype in (torch.float32, torch.float64):
        t = objective.sample_time(path, 2).to(dtype)
        w = objective.weight(path, t, objective.kind)
        assert w.isfinite().all()
        assert (w >= 0).all()


def test_uniform_and_ones_own_weights_are_those_of_what_is_matched(paths: dict[str, GaussianPath]) -> None:
    x0, x1 = torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(0))
    sample = paths["vp"].interpolate(x0, x1, torch.tensor([0.2, 0.4, 0.6, 0.8]))
    field = Field(Model(lambda x, t: x.sin(), "noise"), paths["vp"])
    plain = Matching("velocity").loss(field, sample)
    assert Matching("velocity", weight="uniform").weight is None
    own = Matching("velocity", weight=lambda path, t: 1 + t)
    torch.testing.assert_close(own.loss(field, sample), (1 + sample.t) * plain)
    assert own.loss(field, sample).dtype == torch.float32
    assert as_weighting(own.weight) is own.weight


def test_a_path_that_is_not_gaussian_takes_uniform_weights_only() -> None:
    path = fm.build("path", "icfm", sigma=0.1)
    sample = path.interpolate(*torch.randn(2, 4, 2), torch.full((4,), 0.5))
    field = Field(Model(lambda x, t: x, "velocity"), path)
    assert Matching("velocity", weight=lambda path, t: t).loss(field, sample).shape == (4,)
    with pytest.raises(PredictionError, match="ICFM has no α and σ"):
        Matching("velocity", weight="simple").loss(field, sample)


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_weights_stay_on_the_device_and_wait_for_nothing(name: Any, paths: dict[str, GaussianPath]) -> None:
    t = torch.empty(5, device="meta")
    for kind in GAUSSIAN_KINDS:
        assert weight(name, paths["vp"], kind, t).device.type == "meta"


def test_large_biases_do_not_overflow(paths: dict[str, GaussianPath]) -> None:
    assert math.exp(300) < math.inf
    for bias in (-300.0, 300.0):
        assert weight({"name": "sigmoid", "bias": bias}, paths["vp"], "noise").isfinite().all()


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("min_snrr", UnknownNameError, "did you mean 'min_snr'"),
        ({"name": "min_snr", "gama": 1.0}, TypeError, "Its options: gamma"),
        ({"name": "min_snr", "gamma": 0.0}, ValueError, "gamma must be above 0"),
        ({"name": "edm", "sigma_data": -1.0}, ValueError, "sigma_data must be above 0"),
        ({"name": "sigmoid", "per": "lambda"}, ValueError, "'log_snr' or 'time'"),
        ({"gamma": 1.0}, TypeError, "has the key 'name'"),
        (2.0, TypeError, r"got 2\.0"),
    ],
)
def test_wrong_weights_are_explained(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Matching("noise", weight=value)
