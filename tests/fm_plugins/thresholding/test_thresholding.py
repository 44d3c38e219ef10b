"""Clipping and dynamic thresholding of data predictions, against the schedulers of diffusers to the last digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from attrs import frozen
from torch import Tensor

import fm_core as fm
from fm_core import Field, GaussianPath, Model
from fm_core.building import to_config
from fm_core.errors import TimeError
from fm_core.mixture import GaussianMixture
from fm_plugins.thresholding.clip import clip
from fm_plugins.thresholding.dynamic import dynamic_threshold, quantile_of

STEPS = 20
THRESHOLDS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "clip": (lambda **how: clip(-1.0, 1.0, **how), {"clip_sample": True}),
    "clip half": (lambda **how: clip(-0.5, 0.5, **how), {"clip_sample": True, "clip_sample_range": 0.5}),
    "dynamic": (
        lambda **how: dynamic_threshold(0.9, **how),
        {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1e9},
    ),
    "dynamic bounded": (
        lambda **how: dynamic_threshold(0.9, 1.5, **how),
        {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5},
    ),
}
every_threshold = pytest.mark.parametrize("name", THRESHOLDS)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@frozen(eq=False)
class Knots:
    """DDPM's ᾱ at t = 1 − (k + 1)/N, and 1 at t = 1."""

    products: Tensor

    def _squared(self, t: Tensor) -> Tensor:
        return torch.cat([self.products.flip(0), torch.ones(1).to(self.products)])[
            (t * len(self.products)).round().long()
        ]

    def alpha(self, t: Tensor) -> Tensor:
        return self._squared(t).sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        return (1 - self._squared(t)).sqrt()

    def d_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)


def scheduler_and_path(name: str, options: dict[str, Any]) -> tuple[Any, GaussianPath]:
    theirs = getattr(pytest.importorskip("diffusers"), name)(**{"clip_sample": False, **options})
    theirs.alphas_cumprod = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    if hasattr(theirs, "final_alpha_cumprod"):
        theirs.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    theirs.one = torch.ones((), dtype=torch.float64)
    theirs.set_timesteps(STEPS)
    return theirs, GaussianPath(Knots(theirs.alphas_cumprod))


def time_of(k: int) -> Tensor:
    return torch.tensor(1 - (k + 1) / 1000, dtype=torch.float64)


def noise_net(x: Tensor, t: Tensor) -> Tensor:
    return 0.8 * x + torch.sin(3 * x.flip(1)) + t.view(-1, 1, 1, 1)


def data_of(field: Field, x: Tensor, k: int, before: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The data prediction for a step from index k to `before`, and α, σ at both."""
    t, s = time_of(k), time_of(before)
    data = field.predict(x, t, None, "data", until=s.expand(len(x)))
    return data, (field.path.alpha(t), field.path.sigma(t), field.path.alpha(s), field.path.sigma(s))


@every_threshold
def test_ddpm_as_diffusers_does_it_takes_the_changed_data_alone(name: str) -> None:
    make, options = THRESHOLDS[name]
    theirs, path = scheduler_and_path("DDPMScheduler", options)
    field = Field(Model(noise_net, "noise"), path, (make(),))
    x = draw(3, 3, 4, 4)
    for k in theirs.timesteps.tolist()[:-1]:
        before = max(k - 1000 // STEPS, -1)
        data, (a, s, a_s, s_s) = data_of(field, x, k, before)
        step = (a / a_s).square()
        mean = a_s * (1 - step) / s.square() * data + step.sqrt() * s_s.square() / s.square() * x
        expected = theirs.step(noise_net(x, time_of(k).expand(3)), k, x, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(data, expected.pred_original_sample, rtol=1e-9, atol=1e-9)
        drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
        x = expected.prev_sample
        torch.testing.assert_close(mean + theirs._get_variance(k).sqrt() * drawn, x, rtol=1e-9, atol=1e-9)


@every_threshold
@pytest.mark.parametrize("keep_noise", [True, False])
def test_ddim_as_diffusers_does_it_puts_either_noise_back(name: str, keep_noise: bool) -> None:
    make, options = THRESHOLDS[name]
    theirs, path = scheduler_and_path("DDIMScheduler", options)
    field = Field(Model(noise_net, "noise"), path, (make(keep_noise=keep_noise),))
    x = y = draw(3, 3, 4, 4)
    for k in theirs.timesteps.tolist():
        data, (a, s, a_s, s_s) = data_of(field, x, k, max(k - 1000 // STEPS, -1))
        x = s_s / s * x + (a_s - a * s_s / s) * data
        y = theirs.step(
            noise_net(y, time_of(k).expand(3)), k, y, eta=0.0, use_clipped_model_output=not keep_noise
        ).prev_sample
        torch.testing.assert_close(x, y, rtol=1e-8, atol=1e-8)
    assert y.abs().max() <= (0.5 if name == "clip half" else 1.0) + 1e-9


@pytest.mark.parametrize("ratio", [0.5, 0.9, 0.995, 1.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_dynamic_thresholding_is_that_of_diffusers(ratio: float, dtype: torch.dtype) -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDPMScheduler(thresholding=True, dynamic_thresholding_ratio=ratio, sample_max_value=1e9)
    data = (2 * draw(4, 3, 8, 8)).to(dtype)
    got = dynamic_threshold(ratio).bounded(data)
    assert got.dtype == dtype
    torch.testing.assert_close(got, theirs._threshold_sample(data), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 7, 1000])
@pytest.mark.parametrize("q", [0.0, 0.3, 0.5, 0.995, 1.0])
def test_quantiles_are_those_of_torch(n: int, q: float) -> None:
    values = draw(5, n)
    torch.testing.assert_close(quantile_of(values, q), torch.quantile(values, q, dim=1), rtol=1e-12, atol=1e-12)


def test_quantiles_of_more_values_than_torch_takes_are_found() -> None:
    n = 2**24 + 3
    values = torch.arange(n, 0, -1, dtype=torch.float32)[None]
    with pytest.raises(RuntimeError, match="too large"):
        torch.quantile(values, 0.999, dim=1)
    assert quantile_of(values, 0.999).item() == pytest.approx(0.999 * (n - 1) + 1, rel=1e-6)


@pytest.mark.parametrize("native", ["data", "noise", "velocity"])
def test_clipping_bounds_the_data_prediction_and_nothing_inside_the_range(path: GaussianPath, native: str) -> None:
    x, t = 2 * draw(4, 2), torch.linspace(0.3, 0.7, 4, dtype=torch.float64)
    law = GaussianMixture(1.5 * draw(3, 2, seed=1), 0.4)
    data = law.predict(path, "data", x, t)
    for low, high in ((-1.0, 1.0), (-0.2, 2.0)):
        got = Field(law.model(path, native), path, (clip(low, high),)).predict(x, t, None, "data")
        torch.testing.assert_close(got, data.clamp(low, high), rtol=1e-9, atol=1e-9)
    wide = Field(law.model(path, native), path, (clip(-100.0, 100.0),)).predict(x, t, None, native)
    torch.testing.assert_close(wide, law.predict(path, native, x, t), rtol=1e-9, atol=1e-9)


@every_threshold
@pytest.mark.parametrize("keep_noise", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(1, 2), (4, 4), (3, 3, 4, 4)], ids=str)
def test_samples_are_thresholded_one_by_one(
    paths: dict[str, GaussianPath], name: str, shape: tuple[int, ...], dtype: torch.dtype, keep_noise: bool
) -> None:
    path, x = paths["cosine"], 3 * draw(*shape).to(dtype)
    t = torch.linspace(0.2, 0.7, shape[0], dtype=dtype)
    until = t + torch.linspace(0.1, 0.2, shape[0], dtype=dtype)
    model = Model(lambda x, t: 2 * x, predicts="data")
    field = Field(model, path, (THRESHOLDS[name][0](keep_noise=keep_noise),))
    together = field.predict(x, t, None, "data", until=until)
    assert together.dtype == dtype
    for i in range(shape[0]):
        one = slice(i, i + 1)
        alone = field.predict(x[one], t[one], None, "data", until=until[one])
        torch.testing.assert_close(together[one], alone, rtol=1e-12 if dtype == torch.float64 else 1e-5, atol=0)


def test_where_no_step_is_made_no_noise_is_kept(path: GaussianPath) -> None:
    x, t = 3 * draw(4, 2), torch.full((4,), 0.5, dtype=torch.float64)
    for keep, alone in ((clip(keep_noise=True), clip()), (dynamic_threshold(keep_noise=True), dynamic_threshold())):
        model = Model(lambda x, t: 2 * x, predicts="data")
        kept, plain = (Field(model, path, (g,)).predict(x, t, None, "data", until=t) for g in (keep, alone))
        torch.testing.assert_close(kept, plain)


@pytest.mark.parametrize(
    "guidance", [clip(keep_noise=True), dynamic_threshold(0.9, keep_noise=True)], ids=["clip", "dynamic"]
)
def test_to_keep_the_noise_it_must_know_where_the_step_ends(paths: dict[str, GaussianPath], guidance: Any) -> None:
    field = Field(Model(lambda x, t: x, predicts="data"), paths["linear"], (guidance,))
    with pytest.raises(TimeError, match=r"does not say where its steps end.*keep_noise=False"):
        field.predict(draw(2, 2), 0.5, None, "data")


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match=r"from 1\.0 to -1.0 is empty"):
        clip(1.0, -1.0)
    for options in ({"quantile": 0.0}, {"quantile": 1.1}, {"maximum": 0.5}):
        with pytest.raises(ValueError, match=next(iter(options))):
            dynamic_threshold(**options)


def test_they_are_registered_and_can_be_saved() -> None:
    clip = fm.build("guidance", "clip", low=0.0, keep_noise=True)
    dynamic = fm.build("guidance", "dynamic_threshold", quantile=0.99)
    assert to_config(clip) == {"name": "clip", "low": 0.0, "keep_noise": True}
    assert to_config(dynamic) == {"name": "dynamic_threshold", "quantile": 0.99}
    for guidance in (clip, dynamic):
        assert isinstance(guidance, fm.Guidance)
        assert (guidance.layer, guidance.evals, guidance.acts_on) == (None, 1, "data")
