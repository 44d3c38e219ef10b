"""Equal steps: t_i = a + i/N·(b − a)."""

from __future__ import annotations

from typing import final

from attrs import frozen
from torch import Tensor

from fm_core.protocols import ProbabilityPath
from fm_plugins.grids.warp import warped

__all__ = ["Uniform"]


@final
@frozen
class Uniform:
    """Equal steps in t, the grid of flow matching's own samplers.

    >>> Uniform().times(None, 4).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """

    def times(self, path: ProbabilityPath | None, steps: int, span: tuple[float, float] = (0.0, 1.0)) -> Tensor:
        """Grid of `steps` steps over `span`.

        Args:
            path: Not looked at.
            steps: Number of steps N.
            span: First and last time, in [0, 1]; falling to invert.

        Returns:
            Times `(N + 1,)`, float64 on the CPU.

        Raises:
            TimeError: For a grid that does not exist.
        """
        return warped(lambda u: u, lambda t: t, steps, span)
