"""From a budget to a course: the solver with its tolerances, the grid, and the plan, before the first network call."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

import attrs
import torch
from attrs import frozen
from torch import Tensor

from fm_core.building import name_of
from fm_core.compat import Problem, asked_by
from fm_core.errors import BudgetError, CompatError, TimeError
from fm_core.field import Field
from fm_core.gaussian import check_times
from fm_core.plan import Plan
from fm_core.prediction import Prediction
from fm_core.protocols import ProbabilityPath, Solver, TimeGrid, declared
from fm_core.signatures import check_arguments
from fm_core.table_solver import TableSolver

if TYPE_CHECKING:
    from fm_core.pipeline import Pipeline

__all__ = [
    "Budget",
    "Course",
    "affordable",
    "asked_times",
    "check_budget",
    "course_of",
    "grid_times",
    "is_adaptive",
    "kept_course",
    "plan_of",
    "solver_of",
    "solver_title",
    "step_grid",
    "tolerances",
]

NEAR = 1e-6
"""Times closer than this are one: grids often come in float32."""

KEPT = 32
"""Courses that a pipeline keeps."""


@frozen(eq=False)
class Course:
    """What is fixed before the first network call.

    Args:
        times: The grid, float64 `(N+1,)`.
        plan: The table of a table solver.
        final: Whether the data prediction closes the run.
        scale: What source samples are multiplied by to be states at `times[0]`: σ there.
    """

    times: Tensor
    plan: Plan | None
    final: bool
    scale: float


@frozen
class Budget:
    """What was asked for: one of steps, nfe and times, a start, and how to end."""

    steps: int | None
    nfe: int | None
    times: tuple[float, ...] | None
    start: float | None
    final: str


def course_of(pipeline: Pipeline, solver: Solver, field: Field, budget: Budget) -> Course:
    """The grid and the plan of this budget, computed once for a pipeline."""
    key = (budget, *tolerances(solver))
    course: Course = kept_course(pipeline.courses, key, lambda: _new_course(pipeline, solver, field, budget))
    return course


def plan_of(
    pipeline: Pipeline,
    *,
    steps: int | None = None,
    nfe: int | None = None,
    times: Sequence[float] | Tensor | None = None,
    start: float | None = None,
    final: Literal["data", "none"] = "data",
) -> Plan:
    """The table that `sample` executes with this budget: grid, conversions and the closing data prediction in it.

    Its weights are of what the network predicts, and its first state is that at its first time: σ·x0 there.

    Args:
        pipeline: A pipeline with a table solver.
        steps, nfe, times: The budget, as in `sample`: one of them.
        start: Time at which to start, as for editing.
        final: As in `sample`.

    Raises:
        CompatError: If the solver is no table, or the path lets none close the run.
        ArgumentError, BudgetError, TimeError: As `sample` does.
    """
    check_arguments(plan_of, times=times, start=start)
    solver = solver_of(pipeline, None, None)
    course = course_of(
        pipeline,
        solver,
        Field(pipeline.model, pipeline.path, pipeline.guidance),
        Budget(steps, nfe, asked_times(times), start, final),
    )
    if course.plan is None:
        what = f"a plan of {solver_title(solver)} on this path"
        why = "it is no table of weights known beforehand, or its closing data prediction is no affine row on this path"
        raise CompatError(
            [Problem(what, why, "take a fixed-grid solver, such as 'heun' or 'auto', on a Gaussian path")]
        )
    return course.plan


def asked_times(times: Sequence[float] | Tensor | None) -> tuple[float, ...] | None:
    """Times as a budget holds them."""
    return None if times is None else tuple(check_times(times, (-math.inf, math.inf)).tolist())


def kept_course(courses: dict[Any, Any], key: Any, make: Callable[[], Any]) -> Any:
    """The course of a key, made once; when too many are kept all are forgotten."""
    course = courses.get(key)
    if course is None:
        course = make()
        if len(courses) >= KEPT:
            courses.clear()
        courses[key] = course
    return course


def _new_course(pipeline: Pipeline, solver: Solver, field: Field, budget: Budget) -> Course:
    steps, nfe, times, start = budget.steps, budget.nfe, budget.times, budget.start
    if budget.final not in {"data", "none"}:
        raise BudgetError(f"final must be 'data' or 'none'; got {budget.final!r}")
    check_budget(solver, steps, nfe, times)
    asked_from, high = field.span(asked_by(solver, pipeline.path))
    low = asked_from
    if isinstance(solver, TableSolver) and not solver.starts_blind and hasattr(pipeline.path, "span"):
        low = max(low, pipeline.path.span(solver.space_on(pipeline.path), ())[0])
    ends_noisy = high < 1.0 or bool(declared(pipeline.path, "closing"))
    closing = budget.final == "data" and ends_noisy and Prediction.DATA in pipeline.path.provides
    begin = low if start is None else max(low, start)
    if begin >= high:
        raise TimeError(f"start = {start} leaves nothing to do: this network is asked up to t = {high:.6g}")
    grid_of = step_grid(pipeline, solver, (begin, high))
    if times is not None:
        if asked_from <= min(times) < low - NEAR and isinstance(solver, TableSolver):
            space = solver.space_on(pipeline.path)
            raise TimeError(
                f"a step of {solver_title(solver)} cannot begin at t = {min(times):.6g}: there a {space} prediction "
                f"says nothing of the rest of the state. Let times begin at {low:.6g}, or take a solver of the data or "
                "the velocity (dpm_solver_pp, adams_pc, heun, …)"
            )
        chosen = _given_times(times, begin, high)
        closing = closing and float(chosen[-1]) == high
    elif is_adaptive(solver):
        chosen = torch.tensor([begin, high], dtype=torch.float64)
    elif steps is not None:
        chosen = grid_of(steps)
    else:
        chosen = grid_of(affordable(solver, field, nfe or 0, grid_of, closing))
    table = isinstance(solver, TableSolver) and (not closing or hasattr(pipeline.path, "affine"))
    plan = solver.prepare(field, chosen, final=closing) if isinstance(solver, TableSolver) and table else None
    sigma = getattr(pipeline.path, "sigma", None)
    return Course(chosen, plan, closing, scale=float(sigma(chosen[0])) if callable(sigma) else 1.0)


def affordable(solver: Solver, field: Field, nfe: int, grid_of: Callable[[int], Tensor], closing: bool) -> int:
    """The most steps within so many network calls, each prediction costing what the guidances declare."""
    each = math.prod(int(declared(guidance, "evals")) for guidance in field.guidances)
    if isinstance(solver, TableSolver) and hasattr(field.path, "affine"):
        return solver.steps_for(field, nfe // each, grid_of, final=closing)
    steps = (nfe // each - closing) // solver.evals_per_step
    if steps < 1:
        cost = (solver.evals_per_step + closing) * each
        raise BudgetError(f"one step of {solver_title(solver)} costs {cost} network calls; got nfe={nfe}")
    return steps


def _given_times(times: Sequence[float], begin: float, high: float) -> Tensor:
    """The caller's grid, its ends on those of the span where they differ by float32's rounding."""
    grid = _on_ends(torch.tensor(times, dtype=torch.float64), (begin, high))
    if high < 1.0 and len(grid) > 2 and grid[-1] == 1.0:
        raise TimeError(
            f"this network is asked up to t = {high:.6g}, and its data prediction closes the run at t = 1 by itself; "
            f"let times end at {high:.6g}"
        )
    grid = check_times(grid, (begin, high))
    if grid[0] > grid[-1]:
        raise TimeError("sampling runs towards the data: times must rise; to invert, pipe.encode(x1, …)")
    if grid[0] != begin:
        raise TimeError(
            f"times must begin at {begin:.6g}, where the first states live; got {grid[0]:.6g}. To go on from later, "
            "give data and its time, x1= and start=, or states to solver.solve"
        )
    return grid


def _on_ends(grid: Tensor, span: tuple[float, float]) -> Tensor:
    """A grid whose ends are those of the span where they differ by float32's rounding."""
    ends = (end if abs(float(own) - end) < NEAR else float(own) for own, end in zip((grid[0], grid[-1]), span))
    grid = grid.clone()
    grid[0], grid[-1] = ends
    return grid


def step_grid(pipeline: Pipeline, solver: Solver, span: tuple[float, float]) -> Callable[[int], Tensor]:
    """The grid of a number of steps: the pipeline's, else the solver's own, else uniform.

    A solver's own may end before the span does, where its table ends by itself.
    """
    if pipeline.grid is None:
        return lambda steps: grid_times(declared(solver, "grid"), pipeline.path, steps, span, whole=False)
    return lambda steps: grid_times(pipeline.grid, pipeline.path, steps, span)


def grid_times(
    grid: TimeGrid | None, path: ProbabilityPath, steps: int, span: tuple[float, float], *, whole: bool = True
) -> Tensor:
    """The times of a grid, uniform for None.

    Args:
        grid: The grid.
        path: The path of the pipeline.
        steps: Number of steps N.
        span: First and last time, rising.
        whole: Whether it must go to the end of the span.

    Returns:
        Times `(N + 1,)`, rising, float64.

    Raises:
        TimeError: For a grid of other ends, another direction or another number of steps.
    """
    if grid is None:
        return torch.linspace(*span, steps + 1, dtype=torch.float64)
    times = _on_ends(check_times(grid.times(path, steps, span), (-math.inf, math.inf)), span)
    if len(times) != steps + 1:
        raise TimeError(f"the grid {name_of(grid)!r} has {len(times)} times for {steps} steps; expected {steps + 1}")
    if times[0] != span[0] or (whole and times[-1] != span[1]):
        raise TimeError(
            f"the grid {name_of(grid)!r} goes from t = {times[0]:.6g} to {times[-1]:.6g}; expected {span[0]:.6g} to "
            f"{span[1]:.6g}: a grid places the steps between the ends that it is given. For other ends give times="
        )
    return check_times(times, span)


def check_budget(solver: Solver, steps: int | None, nfe: int | None, times: object | None) -> None:
    """Refuses a budget that is contradictory, missing, or not the solver's to keep."""
    given = {name: value for name, value in (("steps", steps), ("nfe", nfe), ("times", times)) if value is not None}
    if len(given) > 1:
        raise BudgetError(f"give one of steps=, nfe= and times=; got {' and '.join(f'{name}=' for name in given)}")
    if is_adaptive(solver):
        if steps is not None or nfe is not None:
            raise BudgetError(
                f"{solver_title(solver)} chooses its own steps; give rtol= and atol= (default 1e-5), or a solver "
                "with a fixed grid; a limit on its calls is its option max_nfe"
            )
        return
    if not given:
        raise BudgetError(f"{solver_title(solver)} has a fixed grid: give one of steps=, nfe= and times=")
    for name in ("steps", "nfe"):
        value = given.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or value < 1):
            raise BudgetError(f"{name} must be a whole number ≥ 1; got {value!r}")


def solver_of(pipeline: Pipeline, rtol: float | None, atol: float | None) -> Solver:
    """The pipeline's solver, with these tolerances if it is adaptive."""
    solver = pipeline.solver
    if solver is None:
        raise BudgetError("this pipeline has no solver; give one: pipe.replace(solver='heun')")
    given = {name: value for name, value in (("rtol", rtol), ("atol", atol)) if value is not None}
    if not given:
        return solver
    if not is_adaptive(solver):
        raise BudgetError(
            f"{', '.join(given)} given, but {solver_title(solver)} has a fixed grid; give steps=, nfe= or times="
        )
    return attrs.evolve(solver, **given)  # type: ignore[misc]


def tolerances(solver: Solver) -> tuple[float, ...]:
    """rtol and atol of an adaptive solver, nothing for one with a fixed grid."""
    return (solver.rtol, solver.atol) if hasattr(solver, "rtol") and hasattr(solver, "atol") else ()


def is_adaptive(solver: Solver) -> bool:
    """Whether the solver chooses its own steps."""
    return bool(tolerances(solver))


def solver_title(solver: object) -> str:
    """The solver as messages name it."""
    return f"the solver {name_of(solver)!r}"
