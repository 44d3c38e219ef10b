"""torchdiffeq as it comes, on the field's velocity: its fixed-grid methods on the grid given, and its adaptive dopri5.

The solver `dopri5` of this library is torchdiffeq's too, inside guards and with an error norm of every sample's own;
here it is the library's, whose norm is one mean over the batch.

References:
    torchdiffeq. https://github.com/rtqichen/torchdiffeq
"""

from __future__ import annotations

from typing import Any, final

import torch
from attrs import field as attribute, frozen
from torch import Tensor
from torchdiffeq import odeint

from fm_core.errors import DivergenceError
from fm_core.field import Field
from fm_core.gaussian import check_times
from fm_core.prediction import Prediction
from fm_core.protocols import OnStep
from fm_plugins.peers.on_grid import OnGrid, Velocity, told, velocity_of

__all__ = ["Adaptive"]


@final
@frozen
class Adaptive:
    """torchdiffeq's dopri5.

    Args:
        rtol: Error allowed in a step relative to the state.
        atol: Absolute error allowed in a step.
    """

    rtol: float = attribute(default=1e-5)
    atol: float = attribute(default=1e-5)

    needs = frozenset({Prediction.VELOCITY})
    geometries = frozenset({"euclidean"})
    stochastic = False
    order, evals_per_step = 5, 6

    def solve(
        self,
        field: Field,
        x: Tensor,
        times: Tensor,
        *,
        cond: Any = None,
        generator: torch.Generator | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Carries states x `(B, *D)` from `times[0]` to `times[-1]`; times between are interpolated.

        Raises:
            DivergenceError: Where torchdiffeq gives up, which it says by an assert.
        """
        grid = check_times(times)
        velocity, tolerances = velocity_of(field, cond), {"rtol": self.rtol, "atol": self.atol}
        try:
            states = odeint(velocity, x, grid.to(x.device), method="dopri5", **tolerances)
        except AssertionError as error:
            raise DivergenceError(f"torchdiffeq gives up: {error}") from error
        return told(grid, states, on_step)


def _integrated(velocity: Velocity, x: Tensor, grid: Tensor, method: str) -> Tensor:
    states: Tensor = odeint(velocity, x, grid.to(x.device), method=method)
    return states


def euler() -> OnGrid:
    """torchdiffeq's Euler."""
    return OnGrid("euler", 1, 1, _integrated)


def midpoint() -> OnGrid:
    """torchdiffeq's midpoint rule."""
    return OnGrid("midpoint", 2, 2, _integrated)


def heun2() -> OnGrid:
    """torchdiffeq's trapezoidal rule of Heun."""
    return OnGrid("heun2", 2, 2, _integrated)


def heun3() -> OnGrid:
    """torchdiffeq's third-order rule of Heun."""
    return OnGrid("heun3", 3, 3, _integrated)


def rk4() -> OnGrid:
    """torchdiffeq's rk4, the 3/8 rule."""
    return OnGrid("rk4", 4, 4, _integrated)


def dopri5(*, rtol: float = 1e-5, atol: float = 1e-5) -> Adaptive:
    """torchdiffeq's dopri5."""
    return Adaptive(rtol, atol)
