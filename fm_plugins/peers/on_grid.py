"""A method of another library on the grid given, on the field's velocity: what those without a schedule share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from attrs import field as attribute, frozen
from torch import Tensor

from fm_core.field import Field
from fm_core.gaussian import check_times
from fm_core.prediction import Prediction
from fm_core.protocols import OnStep

__all__ = ["OnGrid", "Velocity", "told", "velocity_of"]

Velocity = Callable[[Tensor, Tensor], Tensor]
"""u(t, x), shape `(B, *D)`, of a scalar time and states x."""


@final
@frozen
class OnGrid:
    """A method of another library on the grid given.

    Args:
        method: Its name there.
        order: Order that it claims.
        evals_per_step: Network calls of a step.
        integrate: Gives the states at all times, `(N+1, B, *D)`, of a velocity, x `(B, *D)`, times `(N+1,)` and the
            method's name.
    """

    method: str
    order: int
    evals_per_step: int
    integrate: Callable[[Velocity, Tensor, Tensor, str], Tensor] = attribute(repr=False)

    needs = frozenset({Prediction.VELOCITY})
    geometries = frozenset({"euclidean"})
    stochastic = False

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
        """Carries states x `(B, *D)` from `times[0]` to `times[-1]`.

        Raises:
            TimeError: For times that are not strictly monotone.
        """
        grid = check_times(times)
        return told(grid, self.integrate(velocity_of(field, cond), x, grid, self.method), on_step)


def velocity_of(field: Field, cond: Any) -> Velocity:
    """The field's velocity under a condition."""

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        u: Tensor = field.predict(x, t, cond, Prediction.VELOCITY)
        return u

    return velocity


def told(grid: Tensor, states: Tensor, on_step: OnStep | None) -> Tensor:
    """The last of the states `(N+1, B, *D)` at a grid's times, all of which `on_step` is told."""
    if on_step:
        for t, state in zip(grid.tolist(), states, strict=True):
            on_step(t, state)
    return states[-1]
