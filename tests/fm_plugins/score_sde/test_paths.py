"""What the Gaussian paths of the diffusion family have in common: derivatives, inverses, spans, continuity."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core import GaussianPath, Prediction
from fm_core.prediction import GAUSSIAN_KINDS
from fm_core.registry import from_config, to_config
from fm_core.testing import GaussianMixture

BUILT = {
    "cosine": ("cosine", {}),
    "vp": ("vp", {}),
    "vp_constant": ("vp", {"beta_min": 8.0, "beta_max": 8.0}),
    "sub_vp": ("sub_vp", {}),
    "ve": ("ve", {}),
    "edm": ("edm", {}),
    "edm_rho_3": ("edm", {"rho": 3.0, "sigma_max": 20.0}),
    "ddpm": ("ddpm", {}),
    "ddpm_scaled": ("ddpm", {"betas": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}),
    "ddpm_cosine": ("ddpm", {"betas": "squared_cosine"}),
    "ddpm_zero": ("ddpm", {"zero_terminal_snr": True}),
    "ddpm_given": ("ddpm", {"betas": [0.02, 0.1, 0.3, 0.25, 0.6, 0.5, 0.9, 0.7]}),
}
PATHS: dict[str, GaussianPath] = {key: fm.build("path", name, **options) for key, (name, options) in BUILT.items()}

# By hand: σ = 0 keeps noise from saying anything of … the data end (det of `data` is −σ), and σ' = −∞ at t = 1 (vp).
# α = 0 at t = 0 (cosine, zero terminal SNR) leaves noise and score uninformative there. VE and EDM have neither.
M = 1e-3
SPANS = {
    "cosine": {"data": (0, 1 - M), "noise": (M, 1), "score": (M, 1 - M), "v": (0, 1), "velocity": (0, 1)},
    "vp": {"data": (0, 1 - M), "noise": (0, 1), "score": (0, 1 - M), "v": (0, 1), "velocity": (0, 1 - M)},
    "sub_vp": {"data": (0, 1 - M), "noise": (0, 1), "score": (0, 1 - M), "v": (0, 1), "velocity": (0, 1)},
    "ve": dict.fromkeys(GAUSSIAN_KINDS, (0, 1)),
    "edm": dict.fromkeys(GAUSSIAN_KINDS, (0, 1)),
    "ddpm": dict.fromkeys(GAUSSIAN_KINDS, (0, 0.999)),
    "ddpm_zero": {
        "data": (0, 0.999),
        "noise": (M, 0.999),
        "score": (M, 0.999),
        "v": (0, 0.999),
        "velocity": (0, 0.999),
    },
}


@pytest.fixture(params=PATHS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def path(name: str) -> GaussianPath:
    return PATHS[name]


def inside(n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Times inside (0, 1), crowded at both ends."""
    near = torch.logspace(-6, -2, n // 4, dtype=torch.float64)
    return torch.cat([near, torch.linspace(0.011, 0.987, n - 2 * (n // 4), dtype=torch.float64), 1 - near.flip(0)]).to(
        dtype
    )


def test_derivatives_are_those_of_autodiff(path: GaussianPath) -> None:
    t = inside(80)
    for function, derivative in ((path.schedule.alpha, path.d_alpha), (path.schedule.sigma, path.d_sigma)):
        exact = torch.func.grad(lambda s, f=function: f(s).sum())(t)
        torch.testing.assert_close(derivative(t), exact, rtol=1e-9, atol=1e-12)


def test_log_snr_rises_and_its_inverse_is_exact(path: GaussianPath) -> None:
    t = inside(400)
    log_snr = path.log_snr(t)
    assert (log_snr.diff() > 0).all()
    torch.testing.assert_close(path.t_of_log_snr(log_snr), t, rtol=0, atol=1e-10)


def test_the_inverse_is_right_in_float32_and_clips(path: GaussianPath) -> None:
    """To the rounding of the log-SNR: 6e-8·|λ|/λ' in time, at least float32's own."""
    t = inside(100, torch.float32)
    log_snr = path.log_snr(t.double())
    speed = 2 * (path.d_alpha(t.double()) / path.alpha(t.double()) - path.d_sigma(t.double()) / path.sigma(t.double()))
    back = path.t_of_log_snr(log_snr.float())
    assert back.dtype == torch.float32
    assert ((back - t).abs() <= 4e-7 * (1 + log_snr.abs() / speed)).all()
    ends = path.t_of_log_snr(torch.tensor([-math.inf, -400.0, 400.0, math.inf]))
    torch.testing.assert_close(ends, torch.tensor([0.0, 0.0, 1.0, 1.0]), rtol=0, atol=1e-6)


def test_float32_is_accurate_near_both_ends(path: GaussianPath) -> None:
    """Relative, against float64 at the very same times: nothing cancels."""
    t = inside(200, torch.float32)
    for function in (path.alpha, path.sigma):
        torch.testing.assert_close(function(t).double(), function(t.double()), rtol=4e-6, atol=0)


def test_paths_run_from_noise_to_data(path: GaussianPath, name: str) -> None:
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    alpha, sigma = path.alpha(ends), path.sigma(ends)
    if name != "ddpm_given":
        assert alpha[0] <= 0.1 * sigma[0]
    assert sigma[1] <= 0.05 * alpha[1]
    assert getattr(path.schedule, "closing", False) == (float(sigma[1]) > 0)


@pytest.mark.parametrize("name", SPANS, indirect=False)
def test_spans_are_those_found_by_hand(name: str) -> None:
    for kind, (low, high) in SPANS[name].items():
        assert PATHS[name].span(kind, {Prediction(kind)}) == pytest.approx((low, high), abs=1e-15)
    t = torch.tensor(PATHS[name].span("v", {Prediction.VELOCITY}), dtype=torch.float64)
    assert PATHS[name].d_sigma(t).isfinite().all()


def test_all_conversions_are_undone_by_their_inverses(path: GaussianPath) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(2, 7, 3, generator=generator, dtype=torch.float64)
    sample = path.interpolate(x0, x1, torch.linspace(0.05, 0.95, 7, dtype=torch.float64))
    for src, dst in itertools.product(GAUSSIAN_KINDS, GAUSSIAN_KINDS):
        given, wanted = path.target(sample, src), path.target(sample, dst)
        there = path.convert(given, sample.x_t, sample.t, src=src, dst=dst)
        back = path.convert(there, sample.x_t, sample.t, src=dst, dst=src)
        torch.testing.assert_close(there, wanted, rtol=1e-9, atol=1e-9 * float(1 + wanted.abs().max()))
        torch.testing.assert_close(back, given, rtol=1e-9, atol=1e-9 * float(1 + given.abs().max()))


@pytest.mark.parametrize("t", [0.03, 0.3, 0.6, 0.95])
def test_the_velocity_generates_the_marginals(path: GaussianPath, t: float) -> None:
    """Pointwise on a mixture, by autograd: `∂log p/∂t + ∇·u + u·∇log p = 0`; with the wrong sign of u it is not."""
    data = GaussianMixture([[0.5, -1.0], [1.5, 0.3]], [0.3, 0.6], [1.0, 2.0])
    generator = torch.Generator().manual_seed(0)
    x1, time = data(6, generator), torch.full((6,), t, dtype=torch.float64, requires_grad=True)
    x0 = torch.randn(x1.shape, generator=generator, dtype=torch.float64)
    x = path.interpolate(x0, x1, time.detach()).x_t.requires_grad_()
    score, change = torch.autograd.grad(data.log_prob(path, x, time).sum(), (x, time))
    u = data.predict(path, Prediction.VELOCITY, x, time.detach())
    columns = [torch.autograd.grad(u[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(2)]
    transport = torch.stack(columns).sum(0) + (u * score).sum(1)
    size = change.abs() + torch.stack(columns).abs().sum(0) + (u * score).abs().sum(1)
    assert ((change + transport) / size).abs().max() < 1e-9
    assert ((change - transport) / size).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_schedules_are_elementwise_on_any_shape(path: GaussianPath, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    t = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    for function in (path.alpha, path.sigma, path.d_alpha, path.d_sigma, path.log_snr, path.t_of_log_snr):
        value = function(t)
        assert (value.shape, value.dtype) == (t.shape, dtype)
        single = torch.stack([function(s) for s in t.reshape(-1)]).reshape(shape)
        torch.testing.assert_close(value, single)


def test_schedules_stay_on_the_device_and_wait_for_nothing(path: GaussianPath) -> None:
    """On `meta`, where a tensor of another device or a look at a value would raise."""
    t = torch.empty(5, device="meta")
    for function in (path.alpha, path.sigma, path.d_alpha, path.d_sigma, path.t_of_log_snr):
        assert function(t).device.type == "meta"
    assert float(path.sigma(torch.tensor(1.0))) < 0.05  # and back


def test_paths_are_saved_by_name(path: GaussianPath) -> None:
    again = from_config("path", json.loads(json.dumps(to_config(path))))
    assert again.schedule == path.schedule


@pytest.mark.parametrize("name", ["score_sde", "dsm", "ddpm", "edm"])
def test_recipes_train(name: str) -> None:
    pipe = fm.recipe(name, model=fm.build("model", "mlp", shape=2, width=8, depth=1, seed=0), solver="euler")
    fitted = pipe.fit(torch.randn(64, 2, generator=torch.Generator().manual_seed(0)), steps=3, batch_size=16, seed=0)
    assert all(math.isfinite(loss) for loss in fitted.losses)
