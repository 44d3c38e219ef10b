"""A coupling: source and data sorted along one random direction.

With projections on a direction d, the pairing that sorts both sides minimises Σ ⟨x0_i − x1_π(i), d⟩² over all
permutations π: optimal transport on a line. Across the line it pairs at random, so that in rare batches the whole cost

    Σ |x0_i − x1_π(i)|² = Σ |x0_i|² + Σ |x1_i|² − 2·Σ ⟨x0_i, x1_π(i)⟩

grows; then the batch stays as it was drawn. The cost is thus never above that of independent pairs. Sorting takes
O(B·log B), where exact transport takes O(B³).
"""

from __future__ import annotations

from typing import Any, ClassVar, final

import torch
from attrs import frozen
from fm_core import ShapeError
from fm_core.randomness import normal
from torch import Tensor

__all__ = ["Sorted"]


@final
@frozen
class Sorted:
    """Pairs samples in the order of their projections on a random direction."""

    independent: ClassVar[bool] = False
    bijective: ClassVar[bool] = True

    def pair(
        self, x0: Tensor, x1: Tensor, cond: Any = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Indices `(i, j)`, both permutations of 0 … B−1: `x0[i]` goes with `x1[j]` and its condition `cond[j]`.

        Args:
            x0: Source samples, shape `(B, *D)`.
            x1: Data samples, shape `(B, *D)`.
            cond: Not looked at.
            generator: Draws the direction.

        Raises:
            ShapeError: If the two differ in shape.
        """
        if x0.shape != x1.shape:
            raise ShapeError(f"x0 and x1 must have one shape; got {tuple(x0.shape)} and {tuple(x1.shape)}")
        source, data = x0.flatten(1).double(), x1.flatten(1).double()
        direction = normal(source.shape[1:], generator=generator, dtype=source.dtype, device=source.device)
        i, j = (source @ direction).argsort(), (data @ direction).argsort()
        drawn = torch.arange(len(source), device=source.device)
        cheaper = (source[i] * data[j]).sum() > (source * data).sum()
        return torch.where(cheaper, i, drawn), torch.where(cheaper, j, drawn)
