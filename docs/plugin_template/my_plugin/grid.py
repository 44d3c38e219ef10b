"""A grid: Chebyshev–Lobatto points, the projections on the line of equal steps around a half circle.

t_i = a + (b − a)·sin²(πi/2N),   i = 0 … N

Steps are short at both ends of the span, of length π²/(4N²) there and π/(2N) in the middle.

References:
    Trefethen 2019, Approximation Theory and Approximation Practice, chapter 2.
    https://doi.org/10.1137/1.9781611975949
"""

from __future__ import annotations

import math
from typing import final

import torch
from attrs import frozen
from fm_core import ProbabilityPath, TimeError
from torch import Tensor

__all__ = ["ChebyshevLobatto"]


@final
@frozen
class ChebyshevLobatto:
    """Short steps at both ends."""

    def times(self, path: ProbabilityPath, steps: int, span: tuple[float, float] = (0.0, 1.0)) -> Tensor:
        """Grid of `steps` steps from `span[0]` to `span[1]`.

        Args:
            path: Not looked at.
            steps: Number of steps N ≥ 1.
            span: First and last time; falling to invert.

        Returns:
            Times `(N + 1,)`, float64, strictly monotone.

        Raises:
            TimeError: For a grid without steps, or an empty span.
        """
        first, last = span
        if steps < 1 or first == last:
            raise TimeError(f"a grid has at least one step over a span; got steps={steps}, span={span}")
        angle = torch.arange(steps + 1, dtype=torch.float64) * (math.pi / (2 * steps))
        times = first + (last - first) * angle.sin().square()
        times[-1] = last  # to the last bit, whatever was rounded
        return times
