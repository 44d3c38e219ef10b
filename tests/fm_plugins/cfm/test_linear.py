"""The linear path against the formulas of Lipman et al. 2023."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st

import fm_core as fm
from fm_core import Prediction
from fm_plugins.cfm.linear import Linear, linear

LEVELS = [0.0, 1e-4, 0.1, 0.9]


@pytest.mark.parametrize("sigma_min", LEVELS)
@given(t=st.floats(1e-4, 0.99))
@settings(max_examples=15)
def test_conditional_velocity_is_lipmans(sigma_min: float, t: float) -> None:
    """Equation 21, `u_t(x|x1) = (x1 − (1 − σ_min)·x)/(1 − (1 − σ_min)·t)`, for any x; at x_t the target of equation 23.

    Times below 1e-6, where α counts as 0, are left out.
    """
    path = linear(sigma_min)
    x0, x1, x = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    time = torch.full((4,), t, dtype=torch.float64)
    textbook = (x1 - (1 - sigma_min) * x) / (1 - (1 - sigma_min) * t)
    velocity = path.convert(x1, x, time, src=Prediction.DATA, dst=Prediction.VELOCITY)
    torch.testing.assert_close(velocity, textbook, rtol=1e-11, atol=1e-11)
    sample = path.interpolate(x0, x1, time)
    torch.testing.assert_close(sample.x_t, (1 - (1 - sigma_min) * t) * x0 + t * x1, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(
        path.target(sample, Prediction.VELOCITY), x1 - (1 - sigma_min) * x0, rtol=1e-14, atol=1e-14
    )


@pytest.mark.parametrize("sigma_min", LEVELS)
def test_paths_run_from_the_source_to_the_data_with_sigma_min_left(sigma_min: float) -> None:
    path = linear(sigma_min)
    x0, x1 = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends = [path.interpolate(x0, x1, torch.full((3,), t, dtype=torch.float64)).x_t for t in (0.0, 1.0)]
    torch.testing.assert_close(ends[0], x0, rtol=0, atol=0)
    torch.testing.assert_close(ends[1], x1 + sigma_min * x0, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("sigma_min", LEVELS)
def test_the_velocity_is_constant_along_a_path(sigma_min: float) -> None:
    path = linear(sigma_min)
    x0, x1 = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    target = path.target(path.interpolate(x0[:1].expand(5, 2), x1[:1].expand(5, 2), t), Prediction.VELOCITY)
    torch.testing.assert_close(target, target[:1].expand(5, 2), rtol=0, atol=0)


@pytest.mark.parametrize("sigma_min", [-0.1, 1.0, 2.0])
def test_sigma_min_lies_between_none_and_all_of_the_noise(sigma_min: float) -> None:
    with pytest.raises(ValueError, match="sigma_min"):
        Linear(sigma_min)


def test_the_linear_path_and_the_recipes_are_found_by_name() -> None:
    assert fm.build("path", "linear", sigma_min=0.1).schedule == Linear(0.1)
    for name, sigma_min in (("cfm", 0.0), ("fm", 1e-4)):
        pipeline = fm.recipe(name, model=fm.Model(lambda x, t: x, "velocity"))
        assert pipeline.path.schedule == Linear(sigma_min)
        assert pipeline.objective.kind == "velocity"
        assert pipeline.solver.order == 2
