"""The independent coupling pairs as drawn."""

from __future__ import annotations

import pytest
import torch

from fm_core import Coupling, ShapeError
from fm_plugins.cfm.independent import Independent


@pytest.mark.parametrize("batch", [1, 4, 7])
@pytest.mark.usefixtures("global_rng_untouched")
def test_pairs_are_as_they_were_drawn(batch: int) -> None:
    i, j = Independent().pair(torch.randn(batch, 4, generator=torch.Generator()), torch.zeros(batch, 2, 2))
    assert i.tolist() == j.tolist() == list(range(batch))
    assert isinstance(Independent(), Coupling)
    assert Independent().independent
    assert Independent().bijective


def test_as_many_of_each_are_needed() -> None:
    with pytest.raises(ShapeError, match="as many; got 3 and 4"):
        Independent().pair(torch.zeros(3, 2), torch.zeros(4, 2))
