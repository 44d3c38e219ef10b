"""The algebra: every conversion, in both dtypes and all shapes, against the definition of the five predictions."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from fm_core import Field, GaussianPath, Model, Prediction, PredictionError
from fm_core.prediction import GAUSSIAN_KINDS, affine, as_prediction, det, row

KINDS = sorted(GAUSSIAN_KINDS)
PAIRS = list(itertools.product(KINDS, KINDS))
SHAPES = [(1, 2), (4, 4), (3, 1), (2, 3), (1, 1, 4, 4), (7, 1, 8, 8), (3, 3, 3)]
DTYPES = [torch.float32, torch.float64]
ROUNDINGS = 64
"""Units in the last place that a few operations, and a schedule near its ends, may be off."""

both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@st.composite
def ends(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """x0, x1 of one shape, and a time for each, float64."""
    shape = draw(st.sampled_from(SHAPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    x0, x1 = torch.randn((2, *shape), generator=generator, dtype=torch.float64)
    times = st.lists(st.integers(3, 61), min_size=shape[0], max_size=shape[0])
    return x0, x1, torch.tensor(draw(times), dtype=torch.float64) / 64  # exact in float32 too


def column(values: Tensor, x: Tensor) -> Tensor:
    return values.to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))


def magnitude(
    path: GaussianPath, t: Tensor, src: Prediction, dst: Prediction, x: Tensor, p: Tensor
) -> tuple[Tensor, Tensor]:
    """|m·x| + |k·p| and |k|: what rounding errors of a conversion are relative to."""
    m, k = (column(c, x).abs() for c in path.affine(t, src, dst))
    return m * x.abs() + k * p.abs(), k


@both_dtypes
@given(data=ends())
@settings(max_examples=8)
def test_all_25_conversions_round_trip(path: GaussianPath, dtype: torch.dtype, data: tuple[Tensor, ...]) -> None:
    """Back and forth gives the same to rounding, times the condition of the two maps."""
    x, p, t = (value.to(dtype) for value in data)
    for src, dst in PAIRS:
        q = path.convert(p, x, t, src=src, dst=dst)
        back = path.convert(q, x, t, src=dst, dst=src)
        assert (q.dtype, q.shape) == (dtype, p.shape)
        there, _ = magnitude(path, t, src, dst, x, p)
        here, k = magnitude(path, t, dst, src, x, q)
        bound = ROUNDINGS * torch.finfo(dtype).eps * (k * there + here)
        assert ((back - p).abs() <= bound).all(), (src, dst, ((back - p).abs() - bound).max())


@both_dtypes
@given(data=ends())
@settings(max_examples=8)
def test_converted_targets_are_targets(path: GaussianPath, dtype: torch.dtype, data: tuple[Tensor, ...]) -> None:
    """Given both ends every prediction is known: converting one must give the other, for any coupling of x0 and x1."""
    x0, x1, t = (value.to(dtype) for value in data)
    sample = path.interpolate(x0, x1, t)
    rows = {kind: row(kind, *schedule(path, t)) for kind in KINDS}
    size = {kind: column(a.abs(), x1) * x1.abs() + column(b.abs(), x0) * x0.abs() for kind, (a, b) in rows.items()}
    alpha, sigma, *_ = schedule(path, t)
    state = column(alpha.abs(), x1) * x1.abs() + column(sigma.abs(), x0) * x0.abs()
    for src, dst in PAIRS:
        converted = path.convert(path.target(sample, src), sample.x_t, t, src=src, dst=dst)
        m, k = (column(c, x1).abs() for c in path.affine(t, src, dst))
        bound = ROUNDINGS * torch.finfo(dtype).eps * (m * state + k * size[src] + size[dst])
        error = (converted - path.target(sample, dst)).abs()
        assert (error <= bound).all(), (src, dst, (error / bound).max() * ROUNDINGS)


def schedule(path: GaussianPath, t: Tensor) -> tuple[Tensor, ...]:
    t = t.to(torch.float64)
    return path.alpha(t), path.sigma(t), path.d_alpha(t), path.d_sigma(t)


@given(data=ends())
@settings(max_examples=8)
def test_targets_are_the_rows_of_the_definition(path: GaussianPath, data: tuple[Tensor, ...]) -> None:
    x0, x1, t = data
    sample = path.interpolate(x0, x1, t)
    alpha, sigma, d_alpha, d_sigma = (column(c, x1) for c in schedule(path, t))
    expected = {
        "data": x1,
        "noise": x0,
        "score": -x0 / sigma,
        "v": alpha * x0 - sigma * x1,
        "velocity": d_alpha * x1 + d_sigma * x0,
    }
    torch.testing.assert_close(sample.x_t, alpha * x1 + sigma * x0, rtol=1e-13, atol=1e-13)
    for kind, value in expected.items():
        torch.testing.assert_close(path.target(sample, Prediction(kind)), value, rtol=1e-13, atol=1e-13)


@given(t=st.floats(0.02, 0.98))
@settings(max_examples=8)
def test_score_target_is_the_gradient_of_the_conditional_density(path: GaussianPath, t: float) -> None:
    """∇_x log N(x; α·x1, σ²) at x_t, by autograd."""
    x0, x1 = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    time = torch.full((5,), t, dtype=torch.float64)
    sample = path.interpolate(x0, x1, time)
    x = sample.x_t.clone().requires_grad_()
    alpha, sigma = path.alpha(time)[0], path.sigma(time)[0]
    (score,) = torch.autograd.grad((-0.5 * (x - alpha * x1).square() / sigma.square()).sum(), x)
    torch.testing.assert_close(path.target(sample, Prediction.SCORE), score, rtol=1e-9, atol=1e-9)


def test_squared_errors_convert_by_the_square_of_k(path: GaussianPath) -> None:
    """w_src = k²·w_dst: a loss weighted in one space is the loss weighted so in the other."""
    generator = torch.Generator().manual_seed(1)
    x, p, other = torch.randn(3, 4, 6, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=torch.float64)
    for src, dst in PAIRS:
        _, k = path.affine(t, src, dst)
        error = path.convert(p, x, t, src=src, dst=dst) - path.convert(other, x, t, src=src, dst=dst)
        torch.testing.assert_close(error.square().mean(1), k.square() * (p - other).square().mean(1), rtol=1e-9, atol=0)


def test_conversions_compose(path: GaussianPath) -> None:
    """Over any third kind the map is the same: m = m₂ + k₂·m₁, k = k₂·k₁."""
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    for src, middle, dst in itertools.product(KINDS, KINDS, KINDS):
        m, k = path.affine(t, src, dst)
        (m1, k1), (m2, k2) = path.affine(t, src, middle), path.affine(t, middle, dst)
        torch.testing.assert_close(m2 + k2 * m1, m, rtol=1e-9, atol=1e-9 * float((k2 * m1).abs().max()))
        torch.testing.assert_close(k2 * k1, k, rtol=1e-10, atol=0)


@both_dtypes
def test_times_broadcast_over_the_batch_where_the_width_equals_it(path: GaussianPath, dtype: torch.dtype) -> None:
    """A time (B,) against (B, B) broadcasts along the wrong axis, silently: each sample alone must give the same."""
    generator = torch.Generator().manual_seed(2)
    x0, x1 = torch.randn(2, 4, 4, generator=generator, dtype=dtype)
    t = torch.tensor([0.1, 0.35, 0.6, 0.9], dtype=dtype)
    whole = path.interpolate(x0, x1, t)
    alone = [path.interpolate(x0[i : i + 1], x1[i : i + 1], t[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(whole.x_t, torch.cat([sample.x_t for sample in alone]), rtol=1e-6, atol=1e-6)
    for src, dst in PAIRS:
        target = torch.cat([path.target(sample, dst) for sample in alone])
        torch.testing.assert_close(path.target(whole, dst), target, rtol=1e-6, atol=1e-6)
        value = torch.cat(
            [path.convert(x1[i : i + 1], x0[i : i + 1], t[i : i + 1], src=src, dst=dst) for i in range(4)]
        )
        torch.testing.assert_close(path.convert(x1, x0, t, src=src, dst=dst), value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("eps", "noise"), ("epsilon", "noise"), ("x1", "data"), ("sample", "data"), *((kind, kind) for kind in KINDS)],
)
def test_aliases_name_the_same_prediction(name: str, kind: str, paths: dict[str, GaussianPath]) -> None:
    assert as_prediction(name) is Prediction(kind)
    assert Model(lambda x, t: x, predicts=name).predicts == (Prediction(kind),)
    x, p, t = torch.randn(2, 3), torch.randn(2, 3), torch.tensor([0.2, 0.7])
    path: Any = paths["cosine"]
    torch.testing.assert_close(
        path.convert(p, x, t, src=name, dst="velocity"), path.convert(p, x, t, src=kind, dst="velocity"), rtol=0, atol=0
    )


@pytest.mark.parametrize("name", ["x0", "pred_x0", "x_0"])
def test_x0_is_refused_because_it_means_two_things(name: str, paths: dict[str, GaussianPath]) -> None:
    path: Any = paths["linear"]
    for use in (
        lambda: as_prediction(name),
        lambda: Model(lambda x, t: x, predicts=name),
        lambda: path.convert(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1), src=name, dst="data"),
        lambda: Field(Model(lambda x, t: x, "velocity"), path).predict(torch.zeros(1, 1), 0.5, None, name),
        lambda: path.span("velocity", [name]),
    ):
        with pytest.raises(PredictionError, match=r"DDPM papers.*'data'.*'noise'"):
            use()


@pytest.mark.parametrize(("name", "meant"), [("velocty", "velocity"), ("nois", "noise"), ("scores", "score")])
def test_unknown_kinds_are_refused_with_the_closest_name(name: str, meant: str, path: GaussianPath) -> None:
    """A string of no known kind may be a path's own, so it passes `as_prediction`; a Gaussian path knows better."""
    unknown: Any = as_prediction(name)
    sample = path.interpolate(torch.zeros(1, 1), torch.zeros(1, 1), torch.full((1,), 0.5))
    for use in (
        lambda: path.convert(sample.x_t, sample.x_t, sample.t, src=Prediction.DATA, dst=unknown),
        lambda: path.convert(sample.x_t, sample.x_t, sample.t, src=unknown, dst=Prediction.DATA),
        lambda: path.target(sample, unknown),
        lambda: path.span(unknown, ()),
        lambda: path.span(Prediction.DATA, (unknown,)),
    ):
        with pytest.raises(PredictionError, match=f"did you mean '{meant}'"):
            use()


@pytest.mark.parametrize("nothing", ["", None, 3])
def test_what_is_no_name_is_no_prediction(nothing: Any) -> None:
    with pytest.raises(PredictionError, match="is a name"):
        as_prediction(nothing)


def test_affine_of_scalars_is_affine_of_tensors() -> None:
    """Coefficients have the shape of the schedule's values, a scalar's among them."""
    values = torch.rand(4, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for src, dst in PAIRS:
        for i, whole in enumerate(affine(src, dst, *values)):
            parts = torch.stack([affine(src, dst, *values[:, j])[i] for j in range(3)])
            assert parts.shape == (3,)
            torch.testing.assert_close(whole.expand(3), parts)
        assert det(src, *values).shape == (3,)
