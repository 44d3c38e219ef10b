"""The grid goes from one end of its span to the other, and its times are Chebyshev–Lobatto points."""

from __future__ import annotations

import math

import fm_core as fm
import pytest
import torch

from my_plugin.grid import ChebyshevLobatto

PATH = fm.build("path", "linear")


@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
@pytest.mark.parametrize("span", [(0.0, 1.0), (0.3, 0.7), (1.0, 0.1)])
def test_it_is_monotone_from_end_to_end(steps: int, span: tuple[float, float]) -> None:
    times = ChebyshevLobatto().times(PATH, steps, span)
    assert times.shape == (steps + 1,)
    assert times.dtype == torch.float64
    assert (float(times[0]), float(times[-1])) == span
    assert ((times.diff() * (span[1] - span[0])) > 0).all()


def test_its_times_are_projections_of_a_half_circle() -> None:
    times = ChebyshevLobatto().times(PATH, 6)
    expected = [(1 - math.cos(math.pi * i / 6)) / 2 for i in range(7)]
    torch.testing.assert_close(times, torch.tensor(expected, dtype=torch.float64))


def test_a_grid_without_steps_is_refused() -> None:
    with pytest.raises(fm.TimeError, match="at least one step"):
        ChebyshevLobatto().times(PATH, 0)
