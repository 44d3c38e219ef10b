"""A solver: Ralston's method, of the two-stage methods of order 2 the one whose error bound is least.

p₁ = u(x_t, t),   p₂ = u(x_t + ⅔h·p₁, t + ⅔h),   x_s = x_t + h·(¼·p₁ + ¾·p₂),   h = s − t

A solver is a table: only its weights are computed here, in float64 and before the network is asked for the first time.
fm-core runs the table, counts the calls and converts what the network predicts to velocities.

References:
    Ralston 1962, Runge-Kutta methods with minimum error bounds. https://doi.org/10.1090/S0025-5718-1962-0150954-0
"""

from __future__ import annotations

from itertools import pairwise

from fm_core import Plan, Prediction, ProbabilityPath, Row, TableSolver
from torch import Tensor

__all__ = ["ralston", "ralston_plan"]


def ralston_plan(path: ProbabilityPath, times: Tensor) -> Plan:
    """The table on a grid.

    Args:
        path: Not looked at: the velocity is integrated as it is.
        times: Grid, float64, shape (N+1,), strictly monotone.

    Returns:
        Plan with 2N rows: after every step a grid point, and before it a state at ⅔ of the step.
    """
    grid = times.tolist()
    rows: list[Row] = []
    for t, s in pairwise(grid):
        h, now = s - t, len(rows)  # y_now is the state at t, and p_now the velocity there
        rows.append(Row(t + h * 2 / 3, ((now, 1.0),), ((now, h * 2 / 3),), accepted=False))
        rows.append(Row(s, ((now, 1.0),), ((now, h / 4), (now + 1, h * 3 / 4))))
    return Plan(Prediction.VELOCITY, grid[0], rows)


def ralston() -> TableSolver:
    """Ralston's method: order 2, two evaluations per step."""
    return TableSolver(ralston_plan, space=Prediction.VELOCITY, order=2, evals_per_step=2)
