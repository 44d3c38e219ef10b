"""The coupling loses no sample and never costs more than the pairs that were drawn."""

from __future__ import annotations

import pytest
import torch

from my_plugin.coupling import Sorted


@pytest.mark.parametrize("shape", [(1, 2), (2, 2), (64, 3), (16, 1, 4, 4)])
def test_pairs_are_permutations_that_cost_no_more_than_independent_ones(shape: tuple[int, ...]) -> None:
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        x0, x1 = torch.randn(2, *shape, generator=generator)
        i, j = Sorted().pair(x0, x1, generator=generator)
        assert sorted(i.tolist()) == sorted(j.tolist()) == list(range(shape[0]))
        assert (x0[i] - x1[j]).square().sum() <= (x0 - x1).square().sum() * (1 + 1e-6)


def test_on_the_line_it_is_optimal_transport() -> None:
    x0, x1 = torch.tensor([[2.0], [0.0], [1.0]]), torch.tensor([[10.0], [12.0], [11.0]])
    i, j = Sorted().pair(x0, x1, generator=torch.Generator().manual_seed(0))
    assert (x1[j] - x0[i]).flatten().tolist() == [10.0, 10.0, 10.0]


def test_equal_seeds_give_equal_pairs() -> None:
    x0, x1 = torch.randn(2, 32, 2, generator=torch.Generator().manual_seed(0))
    pairs = [Sorted().pair(x0, x1, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(pairs[0][0], pairs[1][0])
    assert torch.equal(pairs[0][1], pairs[1][1])
