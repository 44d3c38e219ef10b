"""Tables of the linear path on every Gaussian path, and the choice of one by path and number of steps."""

from __future__ import annotations

import functools
from typing import Any, final

import torch
from attrs import evolve, frozen
from torch import Tensor

from fm_core import Plan, Prediction, ProbabilityPath, Solver, TableSolver, TimeGrid, build
from fm_core.straight import clock, straight_plan, straight_space, times_of_clock

__all__ = ["AutoGrid", "StraightGrid", "auto", "auto_plan", "choice", "straight"]

Part = tuple[str, tuple[tuple[str, Any], ...]]
"""A registry name with its options."""

MANY = 10**9


def _adams(order: int) -> Part:
    return "adams_pc", (("order", order),)


def _beta(alpha: float, beta: float) -> Part:
    return "beta", (("alpha", alpha), ("beta", beta))


_RULES: dict[Prediction, tuple[tuple[int, Part, Part], ...]] = {
    Prediction.VELOCITY: (
        (7, _adams(2), _beta(0.6, 0.8)),
        (8, _adams(4), ("power", (("exponent", 1.25),))),
        (14, _adams(4), _beta(0.8, 0.8)),
        (MANY, _adams(5), _beta(0.8, 0.8)),
    ),
    # At the source of a diffusion what a network says of the data is divided by a small α, and so are its errors.
    Prediction.DATA: (
        (7, _adams(2), _beta(0.6, 0.6)),
        (MANY, _adams(3), _beta(0.6, 0.6)),
    ),
}
"""By what tables ask for on a path: up to how many steps, the table, the grid."""


def choice(path: ProbabilityPath, steps: int) -> tuple[TableSolver, StraightGrid]:
    """The table of the linear path and the grid for a path and a number of steps."""
    rules = _RULES[straight_space(path)]
    solver, grid = next((solver, grid) for most, solver, grid in rules if steps <= most)
    return _built("solver", *solver), StraightGrid(_built("grid", *grid))


@functools.cache
def _built(kind: str, name: str, options: tuple[tuple[str, Any], ...] = ()) -> Any:
    return build(kind, name, **dict(options))


def _linear_plan(solver: TableSolver, path: ProbabilityPath, times: Tensor) -> Plan:
    return straight_plan(solver, _built("path", "linear"), path, times)


def straight(solver: Solver) -> TableSolver:
    """A table of the linear path's velocities, on every Gaussian path: in straight coordinates.

    On a path that knows velocities alone (`icfm`) it is the table itself.

    Args:
        solver: Such a table: any Runge–Kutta or Adams method.

    Raises:
        ValueError: For a solver that is no table of velocities.
    """
    if not isinstance(solver, TableSolver) or solver.space != Prediction.VELOCITY or solver.steps is not None:
        raise ValueError(f"straight coordinates are for tables of velocities: adams_pc, heun, …; got {solver!r}")
    grid = None if solver.grid is None else StraightGrid(solver.grid)
    return evolve(solver, plan=functools.partial(_linear_plan, solver), space=None, grid=grid)


@final
@frozen
class StraightGrid:
    """A grid of the linear path, at the same noise levels on any other.

    Args:
        grid: The grid.
    """

    grid: TimeGrid

    def times(self, path: ProbabilityPath, steps: int, span: tuple[float, float] = (0.0, 1.0)) -> Tensor:
        """Grid of `steps` steps over `span`, `(steps + 1,)`, float64."""
        if Prediction.DATA not in path.provides:  # no noise levels: the linear path's clock is the nearest thing
            return self.grid.times(_built("path", "linear"), steps, span)
        ends = torch.tensor(span, dtype=torch.float64)
        low, high = clock(path, ends)[0].tolist()
        tau = self.grid.times(_built("path", "linear"), steps, (low, high))
        return torch.cat([ends[:1], times_of_clock(path, tau[1:-1]), ends[1:]])


@final
@frozen
class AutoGrid:
    """The grid that goes with the table of so many steps."""

    def times(self, path: ProbabilityPath, steps: int, span: tuple[float, float] = (0.0, 1.0)) -> Tensor:
        """Grid of `steps` steps over `span`, `(steps + 1,)`, float64."""
        return choice(path, steps)[1].times(path, steps, span)


def auto_plan(path: ProbabilityPath, times: Tensor) -> Plan:
    """The table that is chosen for path and number of steps, on any grid.

    Args:
        path: Gaussian path, or one that knows velocities alone.
        times: Grid, float64, `(N+1,)`, strictly monotone.
    """
    return _linear_plan(choice(path, len(times) - 1)[0], path, times)


def auto() -> TableSolver:
    """The solver that chooses its table and its grid by path and number of steps, in straight coordinates."""
    return TableSolver(auto_plan, order=2, grid=AutoGrid())
