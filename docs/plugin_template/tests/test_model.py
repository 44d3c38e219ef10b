"""The network has the shape of its state, and its seed is all that is random."""

from __future__ import annotations

import fm_core as fm
import pytest
import torch

from my_plugin.model import Network


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 4, 4)])
@pytest.mark.parametrize("batch", [1, 3])
def test_output_has_the_shape_of_the_state(shape: tuple[int, ...], batch: int) -> None:
    net = Network(shape, seed=0).double()
    x_t, t = torch.zeros(batch, *shape, dtype=torch.float64), torch.linspace(0, 1, batch, dtype=torch.float64)
    assert net(x_t, t).shape == x_t.shape
    assert net(x_t, t).dtype == torch.float64


def test_equal_seeds_give_equal_weights_and_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    one, two, other = Network(2, seed=0), Network(2, seed=0), Network(2, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


def test_states_and_conditions_that_it_does_not_take_are_refused() -> None:
    with pytest.raises(fm.ShapeError, match="states"):
        Network(2, seed=0)(torch.zeros(1, 3), torch.zeros(1))
    with pytest.raises(fm.ShapeError, match="condition"):
        Network(2, seed=0)(torch.zeros(1, 2), torch.zeros(1), torch.zeros(1))
