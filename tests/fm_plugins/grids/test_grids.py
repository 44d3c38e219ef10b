"""Grids: ends, monotonicity, and the closed forms they are named for."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st

from fm_core.errors import TimeError
from fm_plugins.grids.cosine import Cosine
from fm_plugins.grids.power import Power, quadratic
from fm_plugins.grids.shift import Shift, resolution_shift
from fm_plugins.grids.uniform import Uniform

GRIDS = [Uniform(), Cosine(), Power(1.25), Power(0.5), quadratic(), Shift(3.0), Shift(0.25)]
PATH: Any = None
every_grid = pytest.mark.parametrize("grid", GRIDS, ids=repr)


@st.composite
def spans(draw: st.DrawFn) -> tuple[float, float]:
    """Spans at least 1e-3 long, rising or falling."""
    low = draw(st.floats(0.0, 0.999))
    high = draw(st.floats(min(low + 1e-3, 1.0), 1.0))
    return (low, high) if draw(st.booleans()) else (high, low)


@given(grid=st.sampled_from(GRIDS), steps=st.integers(1, 200), span=spans())
@settings(deadline=None)
def test_grid_goes_from_end_to_end_strictly_monotone(grid: Any, steps: int, span: tuple[float, float]) -> None:
    times = grid.times(PATH, steps, span)
    assert times.shape == (steps + 1,)
    assert times.dtype == torch.float64
    assert times.device.type == "cpu"
    assert (times[0].item(), times[-1].item()) == span
    gaps = times.diff() if span[0] < span[1] else -times.diff()
    assert gaps.gt(0).all()


@given(grid=st.sampled_from(GRIDS), steps=st.integers(1, 50), span=spans())
@settings(deadline=None)
def test_falling_grid_is_the_rising_one_reversed(grid: Any, steps: int, span: tuple[float, float]) -> None:
    torch.testing.assert_close(
        grid.times(PATH, steps, span[::-1]), grid.times(PATH, steps, span).flip(0), rtol=0, atol=0
    )


@every_grid
def test_grid_of_a_sub_span_keeps_the_density_of_the_whole(grid: Any) -> None:
    """Cut at one of its own times, a grid goes on as it was: a grid scaled to its span would not."""
    whole = grid.times(PATH, 12)
    part = grid.times(PATH, 7, (whole[5].item(), 1.0))
    torch.testing.assert_close(part, whole[5:], rtol=0, atol=1e-14)


@every_grid
def test_grid_ignores_default_dtype_and_device(grid: Any) -> None:
    expected = grid.times(PATH, 5)
    with torch.device("meta"):
        torch.testing.assert_close(grid.times(PATH, 5), expected, rtol=0, atol=0)


def test_uniform_has_equal_steps() -> None:
    expected = torch.tensor([0.3, 0.4, 0.5, 0.6, 0.7], dtype=torch.float64)
    torch.testing.assert_close(Uniform().times(PATH, 4, (0.3, 0.7)), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_cosine_is_the_speech_models_grid(steps: int) -> None:
    """CosyVoice's 1 − cos(πu/2), which is F5-TTS's sway sampling with coefficient −1."""
    u = [i / steps for i in range(steps + 1)]
    cosyvoice = [1 - math.cos(math.pi / 2 * v) for v in u]
    sway = [v - (math.cos(math.pi / 2 * v) - 1 + v) for v in u]
    times = Cosine().times(PATH, steps)
    torch.testing.assert_close(times, torch.tensor(cosyvoice, dtype=torch.float64), rtol=0, atol=1e-15)
    torch.testing.assert_close(times, torch.tensor(sway, dtype=torch.float64), rtol=0, atol=1e-15)
    assert steps == 1 or times.diff()[0] < times.diff()[-1]


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.25, 2.0, 7.0])
def test_power_spaces_the_root_of_the_noise_level_equally(exponent: float) -> None:
    noise_level = 1 - Power(exponent).times(PATH, 9)
    expected = torch.linspace(1, 0, 10, dtype=torch.float64)
    torch.testing.assert_close(noise_level ** (1 / exponent), expected, rtol=0, atol=1e-7 if exponent > 1 else 1e-14)


def test_quadratic_is_ddims_timesteps() -> None:
    """τ_i = c·i² counted from the data, c·N² = 1: in our time 1 − (i/N)², from i = N down to 0."""
    steps = 8
    expected = [1 - (i / steps) ** 2 for i in range(steps, -1, -1)]
    torch.testing.assert_close(
        quadratic().times(PATH, steps), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("shift", [0.3, 1.0, 3.0, 12.0])
def test_shift_is_sd3s_on_the_noise_level(shift: float) -> None:
    sigma = torch.linspace(1, 0, 11, dtype=torch.float64)
    expected = 1 - shift * sigma / (1 + (shift - 1) * sigma)
    torch.testing.assert_close(Shift(shift).times(PATH, 10), expected, rtol=0, atol=1e-15)


@given(a=st.floats(0.1, 10), b=st.floats(0.1, 10))
def test_shifts_compose_by_multiplication(a: float, b: float) -> None:
    once = 1 - Shift(a).times(PATH, 20)
    twice = b * once / (1 + (b - 1) * once)
    torch.testing.assert_close(1 - Shift(a * b).times(PATH, 20), twice, rtol=0, atol=1e-12)


@given(steps=st.integers(1, 50), span=spans())
@settings(deadline=None)
def test_shift_and_power_of_one_are_uniform(steps: int, span: tuple[float, float]) -> None:
    uniform = Uniform().times(PATH, steps, span)
    torch.testing.assert_close(Shift(1.0).times(PATH, steps, span), uniform, rtol=0, atol=1e-14)
    torch.testing.assert_close(Power(1.0).times(PATH, steps, span), uniform, rtol=0, atol=1e-14)


def test_resolution_shift_is_the_ratio_of_sides() -> None:
    assert resolution_shift(1024 * 1024, 256 * 256) == 4.0


@every_grid
@pytest.mark.parametrize("steps", [0, -3, 2.5])
def test_grid_refuses_no_steps(grid: Any, steps: Any) -> None:
    with pytest.raises(TimeError, match="at least 1"):
        grid.times(PATH, steps)


@every_grid
@pytest.mark.parametrize("span", [(0.2, 1.1), (-0.1, 0.5), (math.nan, 1.0), (0.0, math.inf)])
def test_grid_refuses_spans_outside_the_unit_interval(grid: Any, span: tuple[float, float]) -> None:
    with pytest.raises(TimeError, match=r"\[0, 1\]"):
        grid.times(PATH, 4, span)


@every_grid
def test_grid_refuses_an_empty_span(grid: Any) -> None:
    with pytest.raises(TimeError, match=r"rises.*falls"):
        grid.times(PATH, 4, (0.5, 0.5))


@pytest.mark.parametrize("grid", [Uniform(), Power(7.0)], ids=repr)
def test_grid_refuses_steps_below_the_resolution_of_times(grid: Any) -> None:
    """Equal neighbours would make a step of length 0, which solvers divide by."""
    with pytest.raises(TimeError, match="distinct"):
        grid.times(PATH, 1000, (0.9, math.nextafter(0.9, 1.0)))


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_shift_and_exponent_are_positive(bad: float) -> None:
    with pytest.raises(ValueError, match=r"exponent"):
        Power(bad)
    with pytest.raises(ValueError, match=r"shift"):
        Shift(bad)
