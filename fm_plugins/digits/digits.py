"""Handwritten digits as a map-style data set: images in [−1, 1] and labels 0 … 9.

x1 = level/8 − 1,  level ∈ {0, …, 16}: the background is −1, full ink +1.
"""

from __future__ import annotations

from functools import cache, cached_property
from typing import Literal, final

import torch
from attrs import field, frozen, validators
from torch import Tensor
from torch.utils.data import Dataset

from fm_core.randomness import make_generator

__all__ = ["Digits", "to_unit"]

_COUNT = 1797


@cache
def _scans() -> tuple[Tensor, Tensor]:
    """All images `(1797, 1, 8, 8)` in [−1, 1] and labels `(1797,)`, read from scikit-learn's file once."""
    from sklearn.datasets import load_digits

    levels, labels = load_digits(return_X_y=True)
    return torch.from_numpy(levels).float().reshape(-1, 1, 8, 8) / 8 - 1, torch.from_numpy(labels).long()


def to_unit(x1: Tensor) -> Tensor:
    """Images of [−1, 1] as pictures in [0, 1], what lies outside clipped.

    >>> to_unit(torch.tensor([-1.5, -1.0, 0.0, 1.0]))
    tensor([0.0000, 0.0000, 0.5000, 1.0000])

    Args:
        x1: Images, any shape.

    Returns:
        Pictures of that shape, 0 the background and 1 full ink.
    """
    return ((x1 + 1) / 2).clamp(0, 1)


@final
@frozen(eq=False, slots=False)
class Digits(Dataset[Tensor | tuple[Tensor, Tensor]]):
    """Scanned digits, split the same way for the same seed.

    Item `i` is `(x1, label)`, or `x1` alone for `labels=False`: x1 float32 of shape `(1, 8, 8)` in [−1, 1], label
    int64 of shape `()`. The file is read at the first item, once for all instances.

    >>> data = Digits("train")
    >>> x1, label = data[0]
    >>> len(data), x1.shape, label.dtype
    (1500, torch.Size([1, 8, 8]), torch.int64)

    Args:
        split: `"all"` (1,797), `"train"`, or `"test"`; train and test are disjoint and together are all.
        labels: Whether items carry their label.
        test_size: Images held out for `"test"`.
        seed: Of the permutation that splits; `"all"` keeps the file's order.

    Attributes:
        x1: The split's images, `(len, 1, 8, 8)`.
        labels: The split's labels, `(len,)`, also where items leave them out.
    """

    split: Literal["all", "train", "test"] = field(default="all", validator=validators.in_(("all", "train", "test")))
    labelled: bool = field(default=True, alias="labels")
    test_size: int = field(default=297, validator=[validators.ge(1), validators.lt(_COUNT)])
    seed: int = 0

    @property
    def x1(self) -> Tensor:
        return self._tensors[0]

    @property
    def labels(self) -> Tensor:
        return self._tensors[1]

    def __len__(self) -> int:
        return {"all": _COUNT, "train": _COUNT - self.test_size, "test": self.test_size}[self.split]

    def __getitem__(self, index: int) -> Tensor | tuple[Tensor, Tensor]:
        x1, labels = self._tensors
        return (x1[index], labels[index]) if self.labelled else x1[index]

    @cached_property
    def _tensors(self) -> tuple[Tensor, Tensor]:
        """Images and labels of the split, copied from the file's, so that writing to them harms no other instance."""
        x1, labels = _scans()
        order = torch.randperm(_COUNT, generator=make_generator(self.seed))
        rows = {"all": torch.arange(_COUNT), "train": order[self.test_size :], "test": order[: self.test_size]}
        return x1[rows[self.split]], labels[rows[self.split]]
