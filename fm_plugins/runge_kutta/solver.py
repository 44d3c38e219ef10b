"""Tableaux as plans: every stage a state that is not accepted, every step a row."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from fm_core import Plan, Prediction, ProbabilityPath, Row, TableSolver
from fm_plugins.runge_kutta.tableau import Tableau

__all__ = ["euler", "heun", "midpoint", "rk4", "runge_kutta", "runge_kutta_plan"]


def runge_kutta_plan(tableau: Tableau, path: ProbabilityPath, times: Tensor) -> Plan:
    """The table of a tableau on a grid.

    y_{t + c_i·h} = y_t + h·Σ_{j<i} a_ij·p_j,    y_s = y_t + h·Σ_i b_i·p_i,    h = s − t

    Args:
        tableau: Explicit tableau with m stages.
        path: Not looked at: the velocity is integrated as it is.
        times: Grid, float64, shape (N+1,), strictly monotone.

    Returns:
        Plan with m·N rows in the velocity.
    """
    grid = times.tolist()
    nodes = tableau.c
    rows: list[Row] = []
    for t, s in pairwise(grid):
        h, start = s - t, len(rows)
        for i in range(1, tableau.stages):
            at = s if nodes[i] == 1.0 else t + nodes[i] * h  # the end of the step is a grid point, to the last bit
            rows.append(Row(at, ((start, 1.0),), _terms(tableau.a[i], h, start), accepted=False))
        rows.append(Row(s, ((start, 1.0),), _terms(tableau.b, h, start)))
    return Plan(Prediction.VELOCITY, grid[0], rows)


def _terms(weights: Sequence[float], h: float, start: int) -> tuple[tuple[int, float], ...]:
    return tuple((start + j, weight * h) for j, weight in enumerate(weights) if weight)


def runge_kutta(a: Sequence[Sequence[float]], b: Sequence[float]) -> TableSolver:
    """The explicit Runge–Kutta method of a Butcher tableau; its order is computed from the order conditions.

    Args:
        a: Row i holds the weights a_ij of the stages j < i; the first row is empty.
        b: Weights of the stages in the step, Σ b = 1.

    >>> kutta = runge_kutta([[], [1 / 2], [-1, 2]], [1 / 6, 2 / 3, 1 / 6])
    >>> kutta.order, kutta.evals_per_step
    (3, 3)
    """
    tableau = Tableau(a, b)
    return TableSolver(
        functools.partial(runge_kutta_plan, tableau),
        space=Prediction.VELOCITY,
        order=tableau.order,
        evals_per_step=tableau.stages,
    )


def euler() -> TableSolver:
    """Euler's method: order 1, one evaluation per step.

    x_s = x_t + h·u(x_t, t),  h = s − t
    """
    return runge_kutta([[]], [1.0])


def midpoint() -> TableSolver:
    """The explicit midpoint method: order 2, two evaluations per step.

    x_s = x_t + h·u(x_t + h/2·u(x_t, t), t + h/2),  h = s − t
    """
    return runge_kutta([[], [0.5]], [0.0, 1.0])


def heun() -> TableSolver:
    """Heun's method: explicit trapezoid, order 2, two evaluations per step.

    x_s = x_t + h/2·(u(x_t, t) + u(x_t + h·u(x_t, t), s)),  h = s − t

    References:
        Karras et al. 2022, Algorithm 1. https://arxiv.org/abs/2206.00364
    """
    return runge_kutta([[], [1.0]], [0.5, 0.5])


def rk4() -> TableSolver:
    """The classical Runge–Kutta method: order 4, four evaluations per step.

    x_s = x_t + h/6·(p_1 + 2·p_2 + 2·p_3 + p_4), the stages at t, t + h/2, t + h/2, s,  h = s − t
    """
    return runge_kutta([[], [0.5], [0.0, 0.5], [0.0, 0.0, 1.0]], [1 / 6, 1 / 3, 1 / 3, 1 / 6])
