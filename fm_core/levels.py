"""The noise levels of a grid on a Gaussian path, as coefficient functions read them: float64, and zeros that are
zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fm_core.errors import CompatError
from fm_core.gaussian import ZERO
from fm_core.protocols import ProbabilityPath

__all__ = ["levels"]


def levels(path: ProbabilityPath, times: Tensor) -> tuple[Tensor, Tensor]:
    """α and σ at the times of a grid, float64, of the shape of `times`; what counts as 0 is 0.

    Args:
        path: Gaussian path.
        times: Any shape.

    Raises:
        CompatError: If the path is not Gaussian: it has no α and σ.
    """
    alpha, sigma = getattr(path, "alpha", None), getattr(path, "sigma", None)
    if not callable(alpha) or not callable(sigma):
        from fm_core.compat import Problem

        raise CompatError(
            [
                Problem(
                    f"the solver reads the noise levels of a Gaussian path; {type(path).__name__} has none",
                    "its weights are functions of α and σ in x_t = α·x1 + σ·x0",
                    "use a solver of the velocity alone (euler, heun, dopri5, …)",
                )
            ]
        )
    t = times.to(torch.float64)
    return _snapped(alpha(t)), _snapped(sigma(t))


def _snapped(level: Tensor) -> Tensor:
    return torch.where(level.abs() < ZERO, 0.0, level)
