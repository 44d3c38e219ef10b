"""The independent coupling: x0 and x1 stay as they were drawn."""

from __future__ import annotations

from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from fm_core import ShapeError

__all__ = ["Independent"]


@frozen
class Independent:
    """Pairs sample i of the source with sample i of the data, `q(x0, x1) = q(x0)·q(x1)`."""

    independent = True
    bijective = True

    def pair(
        self, x0: Tensor, x1: Tensor, cond: Any = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Indices 0 … B−1 for both, each `(B,)`.

        Raises:
            ShapeError: If there are not as many x0 as x1.
        """
        if x0.shape[0] != x1.shape[0]:
            raise ShapeError(f"x0 and x1 must be as many; got {x0.shape[0]} and {x1.shape[0]}")
        index = torch.arange(x1.shape[0], device=x1.device)
        return index, index
