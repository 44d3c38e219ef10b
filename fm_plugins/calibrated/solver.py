"""A table of given numbers, its own grid, and what they refuse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from attrs import field as attribute, frozen
from torch import Tensor

from fm_core import BudgetError, CompatError, Plan, Prediction, ProbabilityPath, Row, TableSolver, TimeError
from fm_core.compat import other_path
from fm_core.gaussian import check_times
from fm_core.prediction import as_prediction
from fm_core.straight import clock, straightened

__all__ = ["FixedPlan", "OwnGrid", "calibrated"]

SAME = 1e-6
"""Times that differ by less are one."""


def _numbers(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(map(float, values))


def _rows(values: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(map(_numbers, values))


@final
@frozen
class OwnGrid:
    """The times of a calibrated table, and no others.

    Args:
        own: The times, N + 1 of them, strictly rising.
        early: Whether they may end before the span does.
    """

    own: tuple[float, ...] = attribute(converter=_numbers)
    early: bool = False

    def times(self, path: ProbabilityPath | None, steps: int, span: tuple[float, float] = (0.0, 1.0)) -> Tensor:
        """The times, `(N + 1,)`, float64.

        Raises:
            BudgetError: For another number of steps.
            TimeError: For another span.
        """
        own = self.own
        if steps != len(own) - 1:
            raise BudgetError(
                f"this table was calibrated for {len(own) - 1} steps and has no others; got a budget of {steps}. Give "
                f"steps={len(own) - 1}, or calibrate for that budget: fm.calibrate(pipe, …, nfe=…)"
            )
        if abs(span[0] - own[0]) > SAME or (abs(span[1] - own[-1]) > SAME and not self.early):
            raise TimeError(
                f"this table was calibrated from t = {_shown(own[0])} to {_shown(own[-1])}; got {_shown(span[0])} to "
                f"{_shown(span[1])}. Use an uncalibrated solver to start elsewhere, to invert, or "
                "under guidance that asks the network elsewhere"
            )
        return torch.tensor(own, dtype=torch.float64, device="cpu")


@final
@frozen
class FixedPlan:
    """The coefficient function of one table, which is for one path and one grid.

    Args:
        grid: Its times.
        weights: Row s of s + 1 numbers, in straight coordinates.
        space: What it asks for.
        schedule: α and σ of the path it was fitted on, at t = 1/8 … 7/8; empty to serve any Gaussian path.
        title: What messages call that path.
    """

    grid: OwnGrid
    weights: tuple[tuple[float, ...], ...] = attribute(converter=_rows)
    space: Prediction = attribute(converter=as_prediction)
    schedule: tuple[float, ...] = attribute(default=(), converter=_numbers)
    title: str = "the one"

    @weights.validator
    def _check_weights(self, _: object, weights: tuple[tuple[float, ...], ...]) -> None:
        steps = len(self.grid.own) - 1 + self.grid.early
        if [len(row) for row in weights] != list(range(1, steps + 1)):
            raise ValueError(
                f"{steps + 1} times need {steps} rows of weights of 1 … {steps} numbers (or one row more, which ends "
                f"at clean data); got rows of {[len(row) for row in weights]}"
            )

    def __call__(self, path: ProbabilityPath, times: Tensor) -> Plan:
        """The table.

        Args:
            path: The path it was fitted on.
            times: Its own times.

        Raises:
            CompatError: For another path.
            BudgetError, TimeError: For other times.
        """
        if found := list(other_path(self.schedule, self.title, path)):
            raise CompatError(found)
        own = self.grid.times(path, len(times) - 1, (float(times[0]), float(times[-1])))
        if not torch.allclose(own, times.to(own), rtol=0.0, atol=SAME):
            raise TimeError(
                f"a calibrated table has times of its own, {[round(t, 4) for t in own.tolist()]}; got "
                f"{[round(t, 4) for t in times.tolist()]}. Leave grid= and times= out: pipe.replace(grid=None)"
            )
        tau = [*clock(path, own)[0].tolist(), *[1.0] * self.grid.early]
        rows = [
            Row(t, ((s, 1.0),), tuple((j, b) for j, b in enumerate(row) if b))
            for s, (t, row) in enumerate(zip(tau[1:], self.weights, strict=True))
        ]
        return straightened(Plan(Prediction.VELOCITY, tau[0], rows), path, own, self.space)


def calibrated(
    space: str,
    times: Sequence[float],
    weights: Sequence[Sequence[float]],
    *,
    schedule: Sequence[float] = (),
    predicts: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
) -> TableSolver:
    """A table fitted by `fm.calibrate`, as numbers: `y_{s+1} = y_s + Σ_{j≤s} b_sj·u_j` in straight coordinates.

    Args:
        space: What it asks for, the velocity or the data, from which u follows.
        times: N + 1 times of its path, strictly rising.
        weights: b_sj, N rows, row s of s + 1 numbers; one row more where a run is closed: it ends at clean data.
        schedule: α and σ of its path at t = 1/8 … 7/8; empty to serve any.
        predicts: What its network predicts; empty to serve any.
        provenance: What it was fitted to, and how well.

    Raises:
        ValueError: For numbers that make no table.
    """
    grid, said = OwnGrid(times, early=len(weights) == len(times)), dict(provenance or {})
    check_times(grid.own)
    plan = FixedPlan(grid, weights, space, schedule, said.get("path", "the one"))
    return TableSolver(
        plan,
        space=plan.space,
        order=1,
        grid=grid,
        starts_blind=True,
        steps=len(grid.own) - 1,
        predicts=predicts,
        provenance=said,
    )


def _shown(t: float) -> str:
    """A time as messages say it, without the rounding of 0."""
    return f"{0.0 if abs(t) < SAME else t:.6g}"
