"""Training times: the laws they are drawn from, and that they stay inside the span."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core import GaussianPath, Matching
from fm_core.errors import TimeError, UnknownNameError
from fm_core.training_times import LogNormal, LogSNRUniform, as_time_sampler

N = 20_000
NAMES: list[Any] = [
    "uniform",
    "stratified",
    "logit_normal",
    "log_snr_uniform",
    "lognormal",
    {"name": "noise_level", "sigma": 0.7},
]


def draw(time: Any, path: Any, n: int = N, span: tuple[float, float] = (0.0, 1.0), seed: int = 0) -> Tensor:
    return as_time_sampler(time)(path, n, span, torch.Generator().manual_seed(seed), None)


def distance(values: Tensor, cdf: Any) -> float:
    """Kolmogorov and Smirnov's, of the empirical law of `values` from the exact one, in units of its 1 % quantile."""
    exact = cdf(values.double().sort().values)
    return float((exact - torch.arange(1, len(values) + 1) / len(values)).abs().max() * math.sqrt(len(values)) / 1.63)


def normal_cdf(mean: float, std: float) -> Any:
    return lambda x: 0.5 * (1 + torch.erf((x - mean) / std / math.sqrt(2)))


@pytest.mark.parametrize("span", [(0.0, 1.0), (0.001, 0.999), (0.2, 0.3)])
def test_uniform_and_stratified_are_uniform_on_the_span(paths: dict[str, GaussianPath], span: Any) -> None:
    low, high = span
    for name in ("uniform", "stratified"):
        t = draw(name, paths["linear"], span=span)
        assert distance((t.double() - low) / (high - low), lambda u: u) < 1


def test_stratified_times_lie_one_in_each_cell_in_random_order(paths: dict[str, GaussianPath]) -> None:
    for batch in (1, 7, 256):
        t = draw("stratified", paths["linear"], batch)
        assert torch.equal((t.double() * batch).floor().long().sort().values, torch.arange(batch))
    assert (t.diff() < 0).any()


def test_stratified_times_lower_the_variance_of_the_mean(paths: dict[str, GaussianPath]) -> None:
    """Of a smooth function, from 1/B to 1/B³."""
    spread = {
        name: torch.stack([draw(name, paths["linear"], 16, seed=seed).mean() for seed in range(200)]).std()
        for name in ("uniform", "stratified")
    }
    assert spread["stratified"] < 0.1 * spread["uniform"]


@pytest.mark.parametrize("span", [(0.0, 1.0), (0.001, 0.999)])
def test_logit_normal_times_are_normal_on_the_logit_scale(paths: dict[str, GaussianPath], span: Any) -> None:
    t = draw({"name": "logit_normal", "mean": -0.5, "std": 0.8}, paths["linear"], span=span).double()
    unit = (t - span[0]) / (span[1] - span[0])
    assert distance(torch.logit(unit), normal_cdf(-0.5, 0.8)) < 1


def test_log_snr_is_uniform_between_its_bounds(path: GaussianPath) -> None:
    """Those given where the path goes beyond them, else its own at the ends of the span."""
    span = path.span("noise", {"score"})
    t = draw({"name": "log_snr_uniform", "low": -5.0, "high": 15.0}, path, span=span).double()
    first, last = path.log_snr(torch.tensor(span, dtype=torch.float64)).tolist()
    low, high = max(-5.0, first), min(15.0, last)
    assert distance((path.log_snr(t) - low) / (high - low), lambda u: u) < 1


def test_noise_levels_are_log_normal(paths: dict[str, GaussianPath]) -> None:
    """ln(σ/α) ~ N(−1.2, 1.2²) where the path reaches so far; what lies beyond is put on the end of the span."""
    for name in ("ve", "vp", "linear"):
        path = paths[name]
        span = path.span("data", {"data"})
        t = draw(LogNormal(), path, span=span).double()
        level = -path.log_snr(t) / 2
        first, last = (-path.log_snr(torch.tensor(span, dtype=torch.float64)) / 2).tolist()
        cdf = normal_cdf(-1.2, 1.2)
        inside = (level < first - 1e-4) & (level > last + 1e-4)
        u = cdf(level[inside])
        ends = cdf(torch.tensor([last, first], dtype=torch.float64))
        assert distance((u - ends[0]) / (ends[1] - ends[0]), lambda v: v) < 1.2
        beyond = float(ends[0] + 1 - ends[1])
        assert abs(float((~inside).double().mean()) - beyond) < 5 * math.sqrt((beyond + 1e-4) / N)


def test_one_noise_level_is_one_time(path: GaussianPath) -> None:
    t = draw({"name": "noise_level", "sigma": 0.3}, path, 5)
    assert (t.shape, t.unique().numel()) == ((5,), 1)
    level = path.sigma(t.double()) / path.alpha(t.double())
    torch.testing.assert_close(level, torch.full_like(level, 0.3), rtol=1e-5, atol=0)


@pytest.mark.parametrize("time", NAMES, ids=str)
def test_times_are_inside_the_span_after_rounding(time: Any, path: GaussianPath) -> None:
    """Against spans whose ends are no float32 numbers; 1 − 1e-3 would round outwards."""
    for span in ((0.0, 1.0), (0.001, 0.999), (1e-3, 1 - 1e-3), (1 / 3, 2 / 3), (0.1, 0.7)):
        if isinstance(time, dict) and span != (0.0, 1.0):
            continue  # the level 0.7 is not in all of them
        t = draw(time, path, 5_000, span)
        assert (t.shape, t.dtype) == ((5_000,), torch.float32)
        assert span[0] <= float(t.double().min())
        assert float(t.double().max()) <= span[1]


def test_uniform_times_reach_the_ends_of_the_span() -> None:
    """Numbers just below 1 round to 1 on the way; they are put back to the last float32 inside."""

    def largest(batch: int, **_: Any) -> Tensor:
        return torch.full((batch,), float(np.nextafter(np.float32(1), np.float32(0))))

    from fm_core import training_times

    for low, high in ((0.2, 0.7), (0.001, 0.999)):
        t = training_times._into(largest(3), (low, high)).double()
        assert float(t.max()) <= high
        assert float(t.max()) == pytest.approx(high, abs=1e-6)


@pytest.mark.usefixtures("global_rng_untouched")
@pytest.mark.parametrize("time", NAMES, ids=str)
def test_times_come_from_the_generator(time: Any, paths: dict[str, GaussianPath]) -> None:
    first, second, other = (draw(time, paths["ve"], 9, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, second)
    if not isinstance(time, dict):
        assert not torch.equal(first, other)
    sampler = as_time_sampler(time)
    assert sampler(paths["ve"], 4, (0.0, 1.0), None, None).shape == (4,)  # fresh entropy without a generator
    # A device without values: nothing is looked at on the way, and numbers are drawn where the generator lives.
    assert sampler(paths["ve"], 4, (0.1, 0.9), torch.Generator(), "meta").device.type == "meta"


def test_paths_without_a_log_snr_are_told_what_to_use() -> None:
    path = fm.build("path", "icfm", sigma=0.1)
    for time in NAMES[:3]:
        assert draw(time, path, 3).shape == (3,)
    for time in NAMES[3:]:
        with pytest.raises(TimeError, match="'uniform', 'stratified' or 'logit_normal'"):
            draw(time, path, 3)


def test_bounds_and_levels_that_the_path_does_not_reach(paths: dict[str, GaussianPath]) -> None:
    with pytest.raises(TimeError, match=r"from -5\.991 to 7\.824"):
        draw(LogSNRUniform(10.0, 12.0), paths["ve"])
    with pytest.raises(TimeError, match=r"from 20 down to 0\.02"):
        draw({"name": "noise_level", "sigma": 0.001}, paths["ve"])


@pytest.mark.parametrize(
    ("time", "error", "message"),
    [
        ("unifrm", UnknownNameError, "did you mean 'uniform'"),
        ({"name": "logit_normal", "men": 1.0}, TypeError, "Its options: mean, std"),
        ({"mean": 1.0}, TypeError, "has the key 'name'"),
        (3, TypeError, "got 3"),
        ({"name": "logit_normal", "std": 0.0}, ValueError, "std"),
        ({"name": "log_snr_uniform", "low": 2.0, "high": 1.0}, ValueError, "above low"),
        ({"name": "noise_level", "sigma": -1.0}, ValueError, "sigma"),
    ],
)
def test_wrong_times_are_explained(time: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Matching("noise", time=time)
