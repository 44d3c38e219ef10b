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
    """Twenty rows; `extra` more are given than are said, every look adds `drift`, and row i has the condition
    `label(i)`.
    """

    def __init__(self, extra: int = 0, drift: float = 0.0, label: Any = None) -> None:
        self.x, self.extra, self.drift = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)), extra, drift
        self.label = label

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> Any:
        if index >= 20 + self.extra:
            raise IndexError(index)
        self.x += self.drift
        x = self.x[index].clone()
        return x if self.label is None else (x, self.label(index))


def _fresh(n: int) -> Tensor:
    """Labels that no seed determines."""
    generator = torch.Generator()
    generator.seed()
    return torch.randint(1_000_000, (n,), generator=generator)


class _Drawn(_Rows):
    def __init__(self) -> None:
        super().__init__()
        self.x = torch.randn(40, 2, generator=torch.Generator().manual_seed(torch.seed() % 1000))


right("dataset", "gaussian", _data(_gaussian))
right("dataset", "labelled", _data(lambda n, g: (_gaussian(n, g), torch.zeros(n, dtype=torch.long))))
right("dataset", "tree", _data(lambda n, g: (_gaussian(n, g), {"label": torch.arange(n), "text": torch.zeros(n, 3)})))
right("dataset", "rows", _Rows)
right("dataset", "labelled_rows", lambda: _Rows(label=lambda i: {"label": i % 3, "text": torch.full((4,), float(i))}))

plant("dataset", "builds", "a number", lambda: 3)
plant("dataset", "builds", "its factory raises", lambda: 1 / 0)
plant("dataset", "shapes", "scalars", _data(lambda n, g: torch.randn(n, generator=g)))
plant("dataset", "shapes", "one sample too many", _data(lambda n, g: _gaussian(n + 1, g)))
plant("dataset", "shapes", "labels of another number", _data(lambda n, g: (_gaussian(n, g), torch.zeros(n - 1))))
plant(
    "dataset",
    "shapes",
    "a condition as wide as the draw is long",
    _data(lambda n, g: (_gaussian(n, g), torch.zeros(n, n))),
)
plant("dataset", "shapes", "conditions of two shapes", lambda: _Rows(label=lambda i: torch.zeros(2 + i % 2)))
plant(
    "dataset",
    "shapes",
    "a condition on every second item",
    lambda: _Rows(label=lambda i: {"label": i} if i % 2 else {}),
)
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
plant("dataset", "seeds", "labels from fresh entropy", _data(lambda n, g: (_gaussian(n, g), _fresh(n))))
plant("dataset", "seeds", "labels of map-style items from fresh entropy", lambda: _Rows(label=lambda i: _fresh(1)[0]))
plant(
    "dataset",
    "seeds",
    "a map-style set labelled anew each time it is built",
    lambda: _Rows(label=_fresh(20).__getitem__),
)
plant("dataset", "seeds", "a map-style set drawn anew each time it is built", _Drawn)
plant("dataset", "length", "more items than it says", lambda: _Rows(extra=5))
plant("dataset", "length", "a label drawn at every look", lambda: _Rows(label=lambda i: _fresh(1)[0]))
plant("dataset", "length", "an item that changes when it is looked at", lambda: _Rows(drift=0.1))
