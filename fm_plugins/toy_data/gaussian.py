"""Standard normal data: the source of most flows, and the one data set on which every marginal is known.

x ~ N(0, I)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from attrs import field, frozen
from torch import Tensor

from fm_core.randomness import make_generator

__all__ = ["Gaussian"]


def _event(shape: int | Sequence[int]) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


@final
@frozen
class Gaussian:
    """Standard normal of any event shape.

    >>> from fm_core.randomness import make_generator
    >>> Gaussian(shape=(1, 8, 8))(4, make_generator(0)).shape
    torch.Size([4, 1, 8, 8])

    Args:
        shape: Event shape `(*D,)`, or the number of dimensions.
    """

    shape: tuple[int, ...] = field(default=(2,), converter=_event)

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws `n` independent samples, shape `(n, *D)`, float32."""
        g = generator or make_generator()
        return torch.randn((n, *self.shape), generator=g, device=g.device, dtype=torch.float32)
