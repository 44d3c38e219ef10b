"""Whether a path is the straight one, x_t = t·x1 + (1 − t)·x0, which flows of other libraries follow."""

from __future__ import annotations

import functools
from typing import Any

import torch

from fm_core.compat import Problem
from fm_core.errors import CompatError
from fm_core.levels import levels

__all__ = ["is_linear", "require_linear"]


@functools.lru_cache(maxsize=64)
def is_linear(path: Any) -> bool:
    """Whether α = t and σ = 1 − t, at five times.

    Raises:
        CompatError: If the path is not Gaussian.
    """
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    alpha, sigma = levels(path, t)
    return bool(((alpha - t).abs() + (sigma - (1 - t)).abs() < 1e-9).all())


def require_linear(path: Any) -> None:
    """Refuses any other path.

    Raises:
        CompatError: If the path is not the straight one.
    """
    if not is_linear(path):
        raise CompatError(
            [
                Problem(
                    f"this matcher draws x_t = t·x1 + (1 − t)·x0; the path is {path!r}",
                    "its loss would teach the velocity of another path",
                    "compose it with path='linear'",
                )
            ]
        )
