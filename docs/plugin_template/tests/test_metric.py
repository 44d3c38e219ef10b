"""The metric is 0 between equal sets, symmetric, and right where it is known in closed form."""

from __future__ import annotations

import math

import fm_core as fm
import pytest
import torch

from my_plugin.metric import SquaredMMD

X, Y = torch.randn(2, 30, 3, generator=torch.Generator().manual_seed(0))


def test_it_is_zero_between_equal_sets_symmetric_and_positive() -> None:
    assert SquaredMMD()(X, X) == 0
    assert SquaredMMD()(X, X.flip(0)) == pytest.approx(0, abs=1e-14)
    assert SquaredMMD()(X, Y[:20]) == pytest.approx(SquaredMMD()(Y[:20], X))
    assert SquaredMMD()(X, Y) > 0


def test_two_points_are_as_far_as_the_kernel_says() -> None:
    x, y = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    assert SquaredMMD(bandwidth=5.0)(x, y) == pytest.approx(2 - 2 * math.exp(-1 / 2))


def test_sets_of_other_shapes_are_refused() -> None:
    with pytest.raises(fm.ShapeError, match="one event shape"):
        SquaredMMD()(X, X[:, :2])
