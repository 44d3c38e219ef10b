"""Schedules and Gaussian paths: derivatives, log-SNR, the ends where a network says nothing, sources, grids."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from attrs import evolve, frozen
from hypothesis import given, settings, strategies as st
from torch import Tensor

from fm_core import GaussianPath, PathSample, Prediction, ShapeError, TimeError
from fm_core.gaussian import check_times
from fm_core.prediction import GAUSSIAN_KINDS
from fm_plugins.cfm.linear import linear

MARGIN = 1e-3


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_closed_derivatives_equal_autodiff(path: GaussianPath, dtype: torch.dtype, without_closed_forms: Any) -> None:
    bare: GaussianPath = without_closed_forms(path)
    t = torch.linspace(0.01, 0.99, 50, dtype=dtype)
    tolerance = 200 * torch.finfo(dtype).eps
    for closed, autodiff in ((path.d_alpha(t), bare.d_alpha(t)), (path.d_sigma(t), bare.d_sigma(t))):
        assert autodiff.dtype == dtype
        torch.testing.assert_close(closed, autodiff, rtol=tolerance, atol=tolerance)


def test_autodiff_derivatives_of_any_shape_equal_finite_differences(paths: dict[str, GaussianPath]) -> None:
    path = paths["stranger"]
    for t in (torch.tensor(0.3, dtype=torch.float64), torch.linspace(0.1, 0.9, 6, dtype=torch.float64).reshape(2, 3)):
        h = 1e-6
        for function, derivative in ((path.alpha, path.d_alpha), (path.sigma, path.d_sigma)):
            torch.testing.assert_close(
                derivative(t), (function(t + h) - function(t - h)) / (2 * h), rtol=1e-8, atol=1e-8
            )
        with torch.no_grad():
            torch.testing.assert_close(path.d_alpha(t), 2 * t)


def test_autodiff_derivatives_differentiate_on(paths: dict[str, GaussianPath]) -> None:
    """Losses and Jacobians may go through α': reverse mode, and the transforms of torch.func around it."""
    path, t = paths["stranger"], f64(0.2, 0.5)
    time = t.clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(path.d_alpha(time).sum(), time)[0], torch.full_like(t, 2.0))
    torch.testing.assert_close(torch.func.vmap(path.d_alpha)(t), 2 * t)
    jacobian = torch.func.jacrev(lambda x: path.d_alpha(t) * x)(f64(1.0, 1.0))
    torch.testing.assert_close(jacobian, torch.diag(2 * t))


def test_derivatives_are_finite_inside_the_velocity_span(path: GaussianPath) -> None:
    for src in GAUSSIAN_KINDS:
        low, high = path.span(src, {Prediction.VELOCITY})
        t = torch.cat([f64(low, high), torch.linspace(low, high, 200, dtype=torch.float64)])
        for values in (path.d_alpha(t), path.d_sigma(t), *path.affine(t, src, Prediction.VELOCITY)):
            assert values.isfinite().all()


@pytest.mark.parametrize("kind", sorted(GAUSSIAN_KINDS))
def test_conversions_are_finite_inside_the_span(path: GaussianPath, kind: Prediction) -> None:
    """All that a solver may ask of a network inside its span exists; what needs nothing more has the widest span."""
    for needs in (GAUSSIAN_KINDS, *({dst} for dst in GAUSSIAN_KINDS)):
        low, high = path.span(kind, needs)
        widest = path.span(kind)
        assert widest[0] <= low < high <= widest[1]
        t = torch.linspace(low, high, 50, dtype=torch.float64)
        for dst in needs:
            assert all(values.isfinite().all() for values in path.affine(t, kind, dst)), dst


@given(h=st.floats(-30, 30))
@settings(max_examples=20)
def test_t_of_log_snr_inverts_log_snr(path: GaussianPath, h: float, without_closed_forms: Any) -> None:
    """Closed form and bisection agree, and outside the schedule's range both give the nearer end."""
    bare: GaussianPath = without_closed_forms(path)
    log_snr = f64(h)
    t = path.t_of_log_snr(log_snr)
    assert 0 <= t <= 1
    torch.testing.assert_close(t, bare.t_of_log_snr(log_snr), rtol=0, atol=1e-12)
    lowest, highest = path.log_snr(f64(0.0)), path.log_snr(f64(1.0))
    if lowest < log_snr < highest and t < 1 - 1e-5:  # nearer to the end a time of 1e-16 is a large step in log-SNR
        torch.testing.assert_close(path.log_snr(t), log_snr, rtol=1e-8, atol=1e-8)
    elif log_snr <= lowest:
        torch.testing.assert_close(t, f64(0.0), rtol=0, atol=1e-12)
    elif log_snr >= highest:
        torch.testing.assert_close(t, f64(1.0), rtol=0, atol=1e-12)


def test_t_of_log_snr_keeps_shape_and_dtype(path: GaussianPath) -> None:
    log_snr = torch.linspace(-4, 4, 6).reshape(2, 3)
    t = path.t_of_log_snr(log_snr)
    assert (t.shape, t.dtype) == ((2, 3), torch.float32)
    assert (t.flatten().diff() > 0).all()


@pytest.mark.parametrize(
    ("name", "src", "needs", "low", "high"),
    [
        ("linear", "velocity", "", 0, 1),
        ("linear", "velocity", "data noise v", 0, 1),
        ("linear", "noise", "", MARGIN, 1),  # uninformative where α = 0
        ("linear", "noise", "velocity", MARGIN, 1),
        ("linear", "data", "", 0, 1 - MARGIN),  # uninformative where σ = 0
        ("linear", "data", "velocity", 0, 1 - MARGIN),
        ("linear", "v", "velocity", 0, 1),
        ("linear", "score", "", MARGIN, 1 - MARGIN),
        ("linear", "velocity", "score", 0, 1 - MARGIN),
        ("linear", "noise", "score", MARGIN, 1 - MARGIN),
        ("linear_sigma_min", "velocity", "score", 0, 1),
        ("linear_sigma_min", "data", "velocity score", 0, 1),
        ("cosine", "velocity", "data noise v", 0, 1),  # σ(1) = 6e-17 in float64 counts as 0
        ("cosine", "velocity", "score", 0, 1 - MARGIN),
        ("cosine", "data", "", 0, 1 - MARGIN),
        ("vp", "noise", "", 0, 1),  # α(0) = 0.0066: a network of noise is informative at both ends
        ("vp", "noise", "data", 0, 1),
        ("vp", "noise", "velocity", 0, 1 - MARGIN),  # σ' = −∞ at the data
        ("vp", "velocity", "", 0, 1 - MARGIN),
        ("vp", "v", "", 0, 1),
        ("vp", "v", "velocity", 0, 1 - MARGIN),
        ("vp", "v", "score", 0, 1 - MARGIN),
        ("vp", "data", "noise", 0, 1 - MARGIN),
        ("ve", "velocity", "data noise score v", 0, 1),
        ("ve", "noise", "velocity score", 0, 1),
        ("ve", "data", "velocity", 0, 1),
        ("stranger", "noise", "", MARGIN, 1),
        ("stranger", "data", "velocity", 0, 1 - MARGIN),
    ],
)
def test_span_ends_inside_where_a_network_says_nothing_or_a_conversion_fails(
    paths: dict[str, GaussianPath], name: str, src: str, needs: str, low: float, high: float
) -> None:
    span = paths[name].span(Prediction(src), {Prediction(kind) for kind in needs.split()})
    assert span == pytest.approx((low, high), abs=1e-15)


@pytest.mark.parametrize(("level", "counts"), [(9e-7, False), (1.1e-6, True)])
def test_noise_below_a_millionth_counts_as_none(level: float, counts: bool) -> None:
    """σ_min = 1e-7 is rounding, not a schedule: the score, −noise/σ, is not asked there."""
    assert linear(level).span(Prediction.VELOCITY, {Prediction.SCORE})[1] == (1 if counts else 1 - MARGIN)
    assert linear(level).span(Prediction.DATA)[1] == (1 if counts else 1 - MARGIN)


def test_a_schedules_own_span_is_kept(paths: dict[str, GaussianPath]) -> None:
    """Networks of a schedule that stops at 1 − 1/N stop there; no margin is added where nothing is singular."""

    @frozen
    class Discrete:
        inner: Any
        span: tuple[float, float]

        def alpha(self, t: Tensor) -> Tensor:
            return self.inner.alpha(t)

        def sigma(self, t: Tensor) -> Tensor:
            return self.inner.sigma(t)

    path = GaussianPath(Discrete(paths["vp"].schedule, (0.0, 0.999)))
    assert path.span(Prediction.NOISE, {Prediction.SCORE, Prediction.VELOCITY}) == (0.0, 0.999)
    path = GaussianPath(Discrete(linear().schedule, (0.0, 0.75)))
    assert path.span(Prediction.NOISE) == (MARGIN, 0.75)
    assert evolve(path, margin=0.01).span(Prediction.NOISE) == (0.01, 0.75)


@pytest.mark.parametrize("margin", [0.0, 0.5, -1.0])
def test_margins_that_leave_no_interval_are_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        GaussianPath(linear().schedule, margin=margin)


@given(t=st.floats(0.02, 0.98))
@settings(max_examples=15)
def test_velocity_target_is_the_time_derivative_of_the_path(path: GaussianPath, t: float) -> None:
    x0, x1 = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h = 1e-5

    def at(time: float) -> PathSample:
        return path.interpolate(x0, x1, f64(time, time, time))

    slope = (at(t + h).x_t - at(t - h).x_t) / (2 * h)
    torch.testing.assert_close(path.target(at(t), Prediction.VELOCITY), slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 2), (4, 4), (7, 1, 8, 8), (2, 3, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_interpolation_keeps_shape_and_dtype_and_meets_the_ends(
    path: GaussianPath, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    x0 = path.sample_source(shape, generator=generator, dtype=dtype)
    x1 = torch.randn(shape, generator=generator, dtype=dtype)
    for t in (0.0, 0.5, 1.0):
        time = torch.full((shape[0],), t, dtype=dtype)
        sample = path.interpolate(x0, x1, time)
        assert (sample.x_t.shape, sample.x_t.dtype, sample.t.shape) == (shape, dtype, (shape[0],))
        expected = float(path.alpha(f64(t))) * x1 + float(path.sigma(f64(t))) * x0
        torch.testing.assert_close(sample.x_t, expected, rtol=1e-5, atol=1e-5)
        same = path.interpolate(x0, x1, torch.tensor(t, dtype=dtype))
        torch.testing.assert_close(same.x_t, sample.x_t, rtol=0, atol=0)


@pytest.mark.usefixtures("global_rng_untouched")
def test_the_source_is_standard_normal_and_comes_from_the_generator(paths: dict[str, GaussianPath]) -> None:
    path = paths["ve"]
    x0, again = (path.sample_source((20_000, 2), generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(x0, again)
    assert x0.mean().abs() < 0.03
    assert (x0.T.cov() - torch.eye(2)).abs().max() < 0.05
    assert not torch.equal(path.sample_source((2, 2)), path.sample_source((2, 2)))


def test_another_source_is_asked_and_takes_the_score_away() -> None:
    def source(n: int, generator: torch.Generator | None) -> Tensor:
        return torch.rand(n, 3, generator=generator, dtype=torch.float64)

    path = GaussianPath(linear().schedule, source=source)
    x0 = path.sample_source((4, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    assert x0.dtype == torch.float32
    torch.testing.assert_close(x0, source(4, torch.Generator().manual_seed(0)).float())
    assert path.provides == GAUSSIAN_KINDS - {Prediction.SCORE}
    assert linear().provides == GAUSSIAN_KINDS
    with pytest.raises(ShapeError, match=r"\(4, 3\).*\(4, 2\)"):
        path.sample_source((4, 2))


def test_ends_of_different_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(3, 2\)"):
        linear().interpolate(torch.zeros(2, 3), torch.zeros(3, 2), torch.zeros(2))
    with pytest.raises(ShapeError, match=r"\(3,\)"):
        linear().interpolate(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(3))


@pytest.mark.parametrize("times", [[0, 1], [0.0, 0.25, 1.0], [1.0, 0.5, 0.0], torch.linspace(0, 1, 5)])
def test_monotone_times_become_float64(times: Any) -> None:
    grid = check_times(times)
    assert grid.dtype == torch.float64
    assert grid.tolist() == [float(t) for t in times]


@pytest.mark.parametrize(
    ("times", "why"),
    [
        ([0.5], "at least two"),
        ([[0.0, 1.0]], "at least two"),
        ([0.0, 0.5, 0.5, 1.0], r"times\[1\] = 0.5 is followed by times\[2\] = 0.5"),
        ([0.0, 0.6, 0.4, 1.0], r"times\[1\] = 0.6 is followed by times\[2\] = 0.4"),
        ([1.0, 0.2, 0.4], r"times\[1\] = 0.2 is followed by times\[2\] = 0.4"),
        ([0.3, 0.3, 1.0], r"times\[0\] = 0.3"),
        ([0.0, float("nan")], "finite"),
        ([0.0, 1.5], r"\[0, 1\].*1.5"),
        ([-0.1, 1.0], r"\[0, 1\].*-0.1"),
    ],
)
def test_times_that_are_no_grid_are_refused(times: Any, why: str) -> None:
    with pytest.raises(TimeError, match=why):
        check_times(times)


def test_times_outside_the_networks_span_are_refused() -> None:
    assert check_times([0.0, 0.999], (0.0, 0.999)).numel() == 2
    with pytest.raises(TimeError, match=r"\[0, 0.999\].*got 1"):
        check_times([0.0, 1.0], (0.0, 0.999))


@pytest.mark.parametrize("constant", [lambda t: torch.ones_like(t), lambda t: t.new_ones(t.shape)])
def test_a_schedule_may_be_constant(constant: Callable[[Tensor], Tensor]) -> None:
    """Autodiff of what does not depend on t is 0, not an error."""

    class Exploding:
        def alpha(self, t: Tensor) -> Tensor:
            return constant(t)

        def sigma(self, t: Tensor) -> Tensor:
            return 10 * (1 - t) + 0.01

    path = GaussianPath(Exploding())
    torch.testing.assert_close(path.d_alpha(f64(0.2, 0.7)), f64(0.0, 0.0))
    torch.testing.assert_close(path.d_sigma(f64(0.2, 0.7)), f64(-10.0, -10.0))


def test_conversions_at_one_time_are_those_at_many(path: GaussianPath) -> None:
    """A grid's times are one number for the whole batch, and what was computed for them is kept: to the same values."""
    x, value = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for dtype in (torch.float64, torch.float32):
        one = torch.tensor(0.4, dtype=dtype).expand(3)
        for dst in (Prediction.DATA, Prediction.VELOCITY, Prediction.DATA):
            many = path.convert(value.to(dtype), x.to(dtype), one.clone(), src=Prediction.NOISE, dst=dst)
            for _ in range(2):
                kept = path.convert(value.to(dtype), x.to(dtype), one, src=Prediction.NOISE, dst=dst)
                torch.testing.assert_close(kept, many)


def test_kept_conversions_go_with_their_times(paths: dict[str, GaussianPath]) -> None:
    path = GaussianPath(paths["linear"].schedule)
    x = torch.ones(3, 2)
    for t in (0.2, 0.7):
        time = torch.tensor(t).expand(3)
        torch.testing.assert_close(
            path.convert(x, x, time, src=Prediction.VELOCITY, dst=Prediction.DATA), x + (1 - t) * x
        )
        assert len(path._kept) == 1
        del time
    assert len(path._kept) == 0


@pytest.mark.parametrize(
    ("alpha", "what"),
    [
        (lambda t: 1.0, "gave 1.0"),
        (lambda t: torch.ones(()), r"gave shape \(\)"),
        (lambda t: math.sin(t), "gave .*Error"),
    ],
)
def test_a_schedule_that_is_not_elementwise_is_refused_by_name(alpha: Any, what: str) -> None:
    class Odd:
        def alpha(self, t: Tensor) -> Tensor:
            return alpha(t)  # type: ignore[no-any-return]

        def sigma(self, t: Tensor) -> Tensor:
            return 1 - t

    with pytest.raises(ShapeError, match=rf"elementwise.*Odd\.alpha {what}.*torch\.ones_like"):
        GaussianPath(Odd())
