"""Data sets with one defect each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fm_core.testing.mutants.planting import plant, right

__all__: list[str] = []


def _gaussian(n: int, generator: Any) -> Tensor:
    return torch.randn(n, 2, generator=generator)


def _data(change: Any) -> Any:
    """A sampler `change(n, generator)`."""
    return lambda: change


class _Rows(Dataset[Tensor]):
    """Twenty rows; `extra` more are given than are said, and every look adds `drift`."""

    def __init__(self, extra: int = 0, drift: float = 0.0) -> None:
        self.x, self.extra, self.drift = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)), extra, drift

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> Tensor:
        if index >= 20 + self.extra:
            raise IndexError(index)
        self.x += self.drift
        return self.x[index].clone()


class _Drawn(_Rows):
    def __init__(self) -> None:
        super().__init__()
        self.x = torch.randn(40, 2, generator=torch.Generator().manual_seed(torch.seed() % 1000))


right("dataset", "gaussian", _data(_gaussian))
right("dataset", "labelled", _data(lambda n, g: (_gaussian(n, g), torch.zeros(n, dtype=torch.long))))
right("dataset", "rows", _Rows)

plant("dataset", "builds", "a number", lambda: 3)
plant("dataset", "builds", "its factory raises", lambda: 1 / 0)
plant("dataset", "shapes", "scalars", _data(lambda n, g: torch.randn(n, generator=g)))
plant("dataset", "shapes", "one sample too many", _data(lambda n, g: _gaussian(n + 1, g)))
plant("dataset", "shapes", "labels of another number", _data(lambda n, g: (_gaussian(n, g), torch.zeros(n - 1))))
plant("dataset", "shapes", "whole numbers", _data(lambda n, g: _gaussian(n, g).long()))
plant(
    "dataset",
    "finite",
    "a division by a coordinate rounded to 0",
    _data(lambda n, g: _gaussian(n, g) / (_gaussian(n, g) * 3).round()),
)
plant("dataset", "finite", "pixels up to 255", _data(lambda n, g: torch.rand(n, 2, generator=g) * 255))
plant("dataset", "not_one_point", "the first sample again and again", _data(lambda n, g: _gaussian(1, g).expand(n, 2)))
plant("dataset", "not_one_point", "a mode of no width", _data(lambda n, g: torch.ones(n, 2) + 0 * _gaussian(n, g)))
plant("dataset", "seeds", "torch's global generator", _data(lambda n, g: torch.randn(n, 2)))
plant("dataset", "seeds", "a seed of its own", _data(lambda n, g: _gaussian(n, torch.Generator().manual_seed(0))))
plant("dataset", "seeds", "a map-style set drawn anew each time it is built", _Drawn)
plant("dataset", "length", "more items than it says", lambda: _Rows(extra=5))
plant("dataset", "length", "an item that changes when it is looked at", lambda: _Rows(drift=0.1))
