"""What all posterior guidances share: samples on their own, measurements of any shape, clear refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fm_core as fm
from fm_core import Field, GaussianPath, Model, Prediction
from fm_core.building import OptionError
from fm_core.errors import ShapeError, TimeError
from fm_core.testing import GaussianMixture
from fm_plugins.posterior_guidance import fm_components
from fm_plugins.posterior_guidance.dps import dps
from fm_plugins.posterior_guidance.measured import NotDifferentiableError
from fm_plugins.posterior_guidance.mmps import mmps
from fm_plugins.posterior_guidance.pigdm import pigdm

METHODS = [dps, pigdm, mmps]
IMAGES = GaussianMixture(torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)), 0.5)


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def shrink(x: Tensor) -> Tensor:
    """Averages over 2 × 2 blocks, (B, 3, 8, 8) -> (B, 3, 4, 4)."""
    return nn.functional.avg_pool2d(x, 2)


def score_of(path: GaussianPath, guidance: Any, x: Tensor, t: Tensor, data: GaussianMixture = IMAGES) -> Tensor:
    with torch.no_grad():
        return Field(data.model(path, "velocity"), path, (guidance,)).predict(x, t, None, "score")  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sample_does_not_depend_on_those_beside_it(
    paths: dict[str, GaussianPath], method: Callable[..., Any], dtype: torch.dtype
) -> None:
    """B = 1 equals B = 4 on images; one sample whose measurement is far off leaves the others as they are."""
    path, x, y = paths["cosine"], drawn(4, 3, 8, 8, dtype=dtype), drawn(4, 3, 4, 4, seed=3)
    t = torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=dtype)
    y[2] *= 1e6
    guidance = method(y, shrink, 0.1, scale=torch.tensor([1.0, 0.5, 1.0, 2.0], dtype=dtype))
    together = score_of(path, guidance, x, t)
    assert together.dtype == dtype
    assert not together.requires_grad
    for i in range(4):
        rows = slice(i, i + 1)
        one = score_of(path, guidance.select(rows), x[rows], t[rows])
        scale = together[rows].abs().max()
        torch.testing.assert_close(
            one / scale, together[rows] / scale, rtol=0, atol=1e-12 if dtype.itemsize == 8 else 1e-5
        )
    y[2] /= 1e6
    calm = score_of(path, method(y, shrink, 0.1, scale=guidance.scale), x, t)
    others = torch.tensor([0, 1, 3])
    assert torch.equal(calm[others], together[others])


@pytest.mark.parametrize("method", METHODS)
def test_chunks_take_their_own_measurements(paths: dict[str, GaussianPath], method: Callable[..., Any]) -> None:
    """One measurement for all of as many rows as there are samples is not mistaken for one of each."""
    path = paths["linear"]
    data = GaussianMixture(drawn(3, 4), 0.5)
    for y, operator in (
        (drawn(4, 2), lambda x: x[:, :2]),
        (drawn(2), lambda x: x[:, :2]),
        (drawn(1, 2), lambda x: x[:, :2]),
        (drawn(4, 1), lambda x: x[:, :, None]),
        (drawn(4), lambda x: x.sum(1)),
        (0.5, lambda x: x),
    ):
        pipe = fm.compose(path=path, model=data.model(path), solver="euler", guidance=[method(y, operator, 0.5)])
        whole, chunked = (pipe.sample((4, 4), steps=3, seed=0, chunk=n, dtype=torch.float64).x for n in (None, 3))
        torch.testing.assert_close(chunked, whole, rtol=1e-10, atol=1e-10)


def test_nonlinear_operators_are_followed_by_dps(paths: dict[str, GaussianPath]) -> None:
    """∇ of −‖y − A(D(x))‖²/(2σ_y²), by differences."""
    path, t = paths["vp"], torch.tensor([0.5, 0.8], dtype=torch.float64)
    data, x, y, noise = GaussianMixture(drawn(3, 4), 0.5), drawn(2, 4), drawn(2, 2, seed=2), 0.2

    def operator(x: Tensor) -> Tensor:
        return torch.stack([x.square().sum(1), x.prod(1).tanh()], 1)

    def log_likelihood(v: Tensor) -> Tensor:
        return -(y - operator(data.predict(path, Prediction.DATA, v, t))).square().sum(1) / (2 * noise**2)

    step = 1e-5 * torch.eye(4, dtype=torch.float64)
    gradient = torch.stack([(log_likelihood(x + e) - log_likelihood(x - e)) / 2e-5 for e in step], 1)
    term = score_of(path, dps(y, operator, noise), x, t, data) - data.predict(path, Prediction.SCORE, x, t)
    torch.testing.assert_close(term, gradient, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", [pigdm, mmps])
def test_an_offset_of_the_operator_is_no_part_of_its_derivative(
    paths: dict[str, GaussianPath], method: Callable[..., Any]
) -> None:
    """y = A·x1 + b is y − b = A·x1."""
    path, x, y, t = paths["cosine"], drawn(4, 3, 8, 8), drawn(3, 4, 4), torch.full((4,), 0.5, dtype=torch.float64)
    moved = score_of(path, method(y + 3, lambda v: shrink(v) + 3, 0.2), x, t)
    torch.testing.assert_close(moved, score_of(path, method(y, shrink, 0.2), x, t), rtol=1e-10, atol=1e-10)


def test_an_operator_may_solve_for_itself(paths: dict[str, GaussianPath]) -> None:
    class Mask:
        def __call__(self, x: Tensor) -> Tensor:
            return x * self.mask(x)

        def mask(self, x: Tensor) -> Tensor:
            return (torch.arange(8) % 2).to(x)

        def solve(self, residual: Tensor, variance: Tensor, noise: float) -> Tensor:
            return residual / (variance * self.mask(residual) + noise**2)

    path, x, t = paths["linear"], drawn(4, 3, 8, 8), torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=torch.float64)
    own, y = Mask(), drawn(3, 8, 8)
    iterated = score_of(path, pigdm(y, lambda v: own(v), 0.3, iterations=2), x, t)
    torch.testing.assert_close(score_of(path, pigdm(y, own, 0.3), x, t), iterated, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_kept_where_they_are_on(paths: dict[str, GaussianPath], method: Callable[..., Any]) -> None:
    """Also of the guided score by x_t, through all that the guidance did; by differences."""
    path, t = paths["linear"], torch.tensor([0.5], dtype=torch.float64)
    data, x = GaussianMixture(drawn(3, 3), 0.5), drawn(1, 3)
    field = Field(data.model(path), path, (method(drawn(2), lambda v: v[:, :2], 0.5),))
    jacobian = torch.autograd.functional.jacobian(lambda v: field.predict(v, t, None, "score"), x)[0, :, 0]
    rows = [
        field.predict(x + 1e-5 * e, t, None, "score") - field.predict(x - 1e-5 * e, t, None, "score")
        for e in torch.eye(3).double()
    ]
    torch.testing.assert_close(jacobian, torch.cat(rows).T / 2e-5, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_it_works_under_inference_mode(paths: dict[str, GaussianPath], method: Callable[..., Any]) -> None:
    path, x, t = paths["linear"], drawn(4, 3, 8, 8), torch.full((4,), 0.5, dtype=torch.float64)
    guidance = method(drawn(3, 4, 4), shrink, 0.5)
    with torch.inference_mode():
        inside = score_of(path, guidance, x.clone(), t.clone())
    torch.testing.assert_close(inside.clone(), score_of(path, guidance, x, t))


@pytest.mark.parametrize("method", METHODS)
def test_off_is_bit_for_bit_unguided(paths: dict[str, GaussianPath], method: Callable[..., Any]) -> None:
    path, x = paths["linear"], drawn(4, 3, 8, 8)
    plain = Field(IMAGES.model(path), path)
    off = method(0.0, shrink, 0.5, scale=0)
    assert torch.equal(Field(plain.model, path, (off,)).predict(x, 0.5, None, "v"), plain.predict(x, 0.5, None, "v"))
    assert torch.equal(off.guide(plain, x, torch.tensor(0.5), None), plain.predict(x, 0.5, None, "score"))


def test_dps_with_zeta_needs_the_end_of_the_step(paths: dict[str, GaussianPath]) -> None:
    path, x = paths["linear"], drawn(4, 3, 8, 8)
    guidance = dps(0.0, shrink, zeta=0.5)
    with pytest.raises(TimeError, match="noise="):
        score_of(path, guidance, x, torch.full((4,), 0.5))
    pipe = fm.compose(path=path, model=IMAGES.model(path), solver="euler", guidance=[guidance])
    met = pipe.sample((2, 3, 8, 8), steps=5, seed=0).x
    assert met.isfinite().all()
    exact = score_of(
        path, dps(shrink(IMAGES.predict(path, Prediction.DATA, x, 0.5)), shrink, noise=1.0), x, torch.full((4,), 0.5)
    )
    torch.testing.assert_close(exact, IMAGES.predict(path, Prediction.SCORE, x, 0.5), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: dps(0.0, shrink), "noise=.*zeta=.*neither"),
        (lambda: dps(0.0, shrink, 0.1, zeta=1.0), "both"),
        (lambda: dps(0.0, shrink, 0.0), "noise is a finite number > 0"),
        (lambda: dps(0.0, shrink, zeta=-1.0), "zeta"),
        (lambda: pigdm(0.0, shrink, -0.1), "noise is a finite number ≥ 0"),
        (lambda: pigdm(0.0, shrink, variance=0), "variance"),
        (lambda: mmps(0.0, shrink, float("nan")), "noise"),
        (lambda: mmps(0.0, shrink, iterations=0), "iterations"),
        (lambda: mmps(torch.tensor([1.0, float("nan")]), shrink), "1 entries that are not finite"),
        (lambda: mmps("y", shrink), "y is a tensor"),
        (lambda: mmps(0.0, None), "operator"),
    ],
)
def test_options_that_make_no_sense_are_refused(build: Callable[[], Any], match: str) -> None:
    with pytest.raises(OptionError, match=match):
        build()


@pytest.mark.parametrize("method", METHODS)
def test_what_does_not_fit_is_said(paths: dict[str, GaussianPath], method: Callable[..., Any]) -> None:
    path, x, t = paths["linear"], drawn(4, 3, 8, 8), torch.full((4,), 0.5, dtype=torch.float64)
    for y in (drawn(5, 3, 4, 4), drawn(4, 4), drawn(4, 1, 3, 4, 4), drawn(3, 4, 1)):
        with pytest.raises(ShapeError, match=r"operator measures \(4, 3, 4, 4\)"):
            score_of(path, method(y, shrink, 0.5), x, t)
    with pytest.raises(ShapeError, match=r"measurements \(4, …\)"):
        score_of(path, method(0.0, lambda v: v.mean(0), 0.5), x, t)
    with pytest.raises(NotDifferentiableError, match="measurement"):
        score_of(path, method(0.0, lambda v: v.detach().round(), 0.5), x, t)
    frozen = Model(torch.no_grad()(lambda x, t: 2 * x), "data")
    with pytest.raises(NotDifferentiableError, match="data prediction"), torch.no_grad():
        Field(frozen, path, (method(0.0, shrink, 0.5),)).predict(x, t, None, "score")


@pytest.mark.parametrize("component", fm_components(), ids=lambda component: component.name)
def test_the_registry_builds_each_by_its_example(component: fm.Component, paths: dict[str, GaussianPath]) -> None:
    guidance = fm.build("guidance", component.name, **component.example)
    assert (guidance.layer, guidance.acts_on, guidance.off) == (1, "score", False)
    assert score_of(paths["linear"], guidance, drawn(1, 3, 8, 8), torch.full((1,), 0.5)).isfinite().all()
