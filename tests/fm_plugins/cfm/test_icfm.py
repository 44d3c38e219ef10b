"""The law of I-CFM's smoothed segment, and what it cannot answer (Tong et al. 2024, equations 14 and 15)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fm_core import Prediction, PredictionError, ProbabilityPath, ShapeError
from fm_plugins.cfm.icfm import ICFM
from fm_plugins.cfm.linear import linear


def ends(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    x0, x1 = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return x0, x1


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("sigma", [0.1, 1.5])
def test_states_are_normal_around_the_segment_with_the_same_scale_at_all_times(t: float, sigma: float) -> None:
    x0, x1 = (end.expand(40_000, 3) for end in ends(1, 3))
    time = torch.full((40_000,), t, dtype=torch.float64)
    x_t = ICFM(sigma).interpolate(x0, x1, time, generator=torch.Generator().manual_seed(1)).x_t
    rest = (x_t - ((1 - t) * x0 + t * x1)) / sigma
    assert rest.mean(0).abs().max() < 0.03
    assert (rest.T.cov() - torch.eye(3, dtype=torch.float64)).abs().max() < 0.05
    assert abs(float((rest.abs() < 1).double().mean()) - 0.6827) < 0.01


@pytest.mark.parametrize("shape", [(1, 2), (4, 4), (3, 1, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_without_smoothing_it_is_the_linear_path(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x0, x1 = ends(*shape, dtype=dtype)
    t = torch.linspace(0.0, 1.0, shape[0], dtype=dtype)
    smoothed, straight = (path.interpolate(x0, x1, t) for path in (ICFM(), linear()))
    assert smoothed.x_t.dtype == dtype
    torch.testing.assert_close(smoothed.x_t, straight.x_t)
    torch.testing.assert_close(
        ICFM().target(smoothed, Prediction.VELOCITY), linear().target(straight, Prediction.VELOCITY)
    )


@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_the_velocity_is_the_difference_of_the_ends(sigma: float) -> None:
    x0, x1 = ends(4, 4)
    sample = ICFM(sigma).interpolate(x0, x1, torch.rand(4, dtype=torch.float64), generator=torch.Generator())
    assert torch.equal(ICFM(sigma).target(sample, Prediction.VELOCITY), x1 - x0)


@pytest.mark.usefixtures("global_rng_untouched")
def test_equal_generators_smooth_equally() -> None:
    x0, x1 = ends(4, 2)
    t = torch.full((4,), 0.5)
    a, b = (ICFM(0.3).interpolate(x0, x1, t, generator=torch.Generator().manual_seed(2)).x_t for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, ICFM(0.3).interpolate(x0, x1, t).x_t)


@pytest.mark.parametrize("kind", ["data", "noise", "score", "v", "rate"])
def test_other_predictions_than_the_velocity_are_refused_with_the_path_that_has_them(kind: str) -> None:
    path, (x0, x1) = ICFM(0.1), ends(2, 2)
    sample = path.interpolate(x0, x1, torch.full((2,), 0.5))
    assert path.provides == {"velocity"}
    for use in (
        lambda: path.target(sample, kind),
        lambda: path.convert(x1, x0, sample.t, src=Prediction.VELOCITY, dst=kind),
        lambda: path.convert(x1, x0, sample.t, src=kind, dst=Prediction.VELOCITY),
    ):
        with pytest.raises(PredictionError, match=f"velocity alone; got '{kind}'.*'linear'"):
            use()
    assert path.convert(x1, x0, sample.t, src=Prediction.VELOCITY, dst=Prediction.VELOCITY) is x1


def test_any_source_will_do_if_its_shape_fits() -> None:
    def source(n: int, generator: torch.Generator | None) -> Tensor:
        return torch.rand(n, 2, generator=generator, dtype=torch.float64)

    path = ICFM(0.1, source)
    assert isinstance(path, ProbabilityPath)
    assert path.sample_source((5, 2), dtype=torch.float32).dtype == torch.float32
    with pytest.raises(ShapeError, match=r"\(5, 2\); the path needs \(5, 3\)"):
        path.sample_source((5, 3))
    x0 = ICFM(0.1).sample_source((1000, 2), generator=torch.Generator().manual_seed(0))
    assert x0.shape == (1000, 2)
    assert abs(float(x0.std()) - 1) < 0.05


def test_bad_ends_and_scales_are_refused() -> None:
    with pytest.raises(ShapeError, match="one shape"):
        ICFM().interpolate(torch.zeros(2, 3), torch.zeros(3, 3), torch.zeros(2))
    with pytest.raises(ValueError, match="sigma"):
        ICFM(-0.1)
