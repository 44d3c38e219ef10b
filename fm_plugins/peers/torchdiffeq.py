"""torchdiffeq as it comes, on the field's velocity: its fixed-grid methods on the grid given, and its adaptive dopri5.

The solver `dopri5` of this library is torchdiffeq's too, inside guards and with an error norm of every sample's own;
here it is the library's, whose norm is one mean over the batch.

References:
    torchdiffeq. https://github.com/rtqichen/torchdiffeq
"""

from __future__ import annotations

from collections.abc import Callable
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

__all__ = ["Adaptive", "FixedGrid"]

METHODS = {"euler": (1, 1), "midpoint": (2, 2), "heun2": (2, 2), "heun3": (3, 3), "rk4": (4, 4)}
"""Order, and network calls of a step, by torchdiffeq's name."""


@final
@frozen
class FixedGrid:
    """A method of torchdiffeq on the grid given.

    Args:
        method: Its name.
    """

    method: str

    needs = frozenset({Prediction.VELOCITY})
    geometries = frozenset({"euclidean"})
    stochastic = False

    @property
    def order(self) -> int:
        """Order that it claims."""
        return METHODS[self.method][0]

    @property
    def evals_per_step(self) -> int:
        """Network calls of a step."""
        return METHODS[self.method][1]

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
        """Carries states x `(B, *D)` from `times[0]` to `times[-1]`."""
        grid = check_times(times)
        states = odeint(_velocity(field, cond), x, grid.to(x.device), method=self.method)
        return _told(grid, states, on_step)


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
        velocity, tolerances = _velocity(field, cond), {"rtol": self.rtol, "atol": self.atol}
        try:
            states = odeint(velocity, x, grid.to(x.device), method="dopri5", **tolerances)
        except AssertionError as error:
            raise DivergenceError(f"torchdiffeq gives up: {error}") from error
        return _told(grid, states, on_step)


def _velocity(field: Field, cond: Any) -> Callable[[Tensor, Tensor], Tensor]:
    def velocity(t: Tensor, x: Tensor) -> Tensor:
        u: Tensor = field.predict(x, t, cond, Prediction.VELOCITY)
        return u

    return velocity


def _told(grid: Tensor, states: Tensor, on_step: OnStep | None) -> Tensor:
    """The last of the states at a grid's times, all of which `on_step` is told."""
    if on_step:
        for t, state in zip(grid.tolist(), states, strict=True):
            on_step(t, state)
    return states[-1]


def euler() -> FixedGrid:
    """torchdiffeq's Euler."""
    return FixedGrid("euler")


def midpoint() -> FixedGrid:
    """torchdiffeq's midpoint rule."""
    return FixedGrid("midpoint")


def heun2() -> FixedGrid:
    """torchdiffeq's trapezoidal rule of Heun."""
    return FixedGrid("heun2")


def heun3() -> FixedGrid:
    """torchdiffeq's third-order rule of Heun."""
    return FixedGrid("heun3")


def rk4() -> FixedGrid:
    """torchdiffeq's rk4, the 3/8 rule."""
    return FixedGrid("rk4")


def dopri5(*, rtol: float = 1e-5, atol: float = 1e-5) -> Adaptive:
    """torchdiffeq's dopri5."""
    return Adaptive(rtol, atol)
