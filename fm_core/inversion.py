"""The falling grid of an inversion, and how it meets the ends of the path: fixed before the first network call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from attrs import frozen
from torch import Tensor

from fm_core.compat import asked_by
from fm_core.course import Budget, affordable, check_budget, is_adaptive, kept_course, step_grid, tolerances
from fm_core.errors import BudgetError, TimeError
from fm_core.field import Field
from fm_core.gaussian import check_times
from fm_core.plan import Plan
from fm_core.prediction import Prediction
from fm_core.protocols import Solver, declared
from fm_core.table_solver import TableSolver

if TYPE_CHECKING:
    from fm_core.pipeline import Pipeline

__all__ = ["Inversion", "inversion_of"]


@frozen(eq=False)
class Inversion:
    """What is fixed before the first network call.

    Args:
        times: The falling grid, float64 `(N+1,)`.
        plan: The table of a table solver.
        noise_share: How much of its noise prediction the first state holds beside the data: see `encoding`. 1 where the
            data are a data prediction there, ½ where they are where the flow ends; 0 where they are the state.
        opened: Whether the noise prediction at the last state is the source sample.
        alpha, sigma: α at the first time, σ at the last.
    """

    times: Tensor
    plan: Plan | None
    noise_share: float
    opened: bool
    alpha: float
    sigma: float


def inversion_of(pipeline: Pipeline, solver: Solver, field: Field, budget: Budget) -> Inversion:
    """The inversion with this budget, computed once for a pipeline."""
    key = ("encode", budget, *tolerances(solver))
    course: Inversion = kept_course(pipeline.courses, key, lambda: _new_inversion(pipeline, solver, field, budget))
    return course


def _new_inversion(pipeline: Pipeline, solver: Solver, field: Field, budget: Budget) -> Inversion:
    if budget.final not in {"data", "none"}:
        raise BudgetError(f"final must be 'data' or 'none'; got {budget.final!r}")
    check_budget(solver, budget.steps, budget.nfe, budget.times)
    path = pipeline.path
    (begin, end), noise_share, opened = _ends(pipeline, solver, field, budget.final)
    upward = step_grid(pipeline, solver, (end, begin))
    if budget.times is not None:
        chosen = _given_times(budget.times, end, begin)
    elif is_adaptive(solver):
        chosen = torch.tensor([begin, end], dtype=torch.float64)
    elif budget.steps is not None:
        chosen = upward(budget.steps).flip(0)
    else:
        each = math.prod(int(declared(guidance, "evals")) for guidance in field.guidances)
        ends = ((noise_share > 0) + opened) * each
        left = (budget.nfe or 0) - ends
        if left < 1:
            raise BudgetError(f"the ends of this inversion cost {ends} network calls; got nfe={budget.nfe}")
        chosen = upward(affordable(solver, field, left, lambda n: upward(n).flip(0), False)).flip(0)
    plan = solver.prepare(field, chosen) if isinstance(solver, TableSolver) else None
    alpha, sigma = (getattr(path, level, None) for level in ("alpha", "sigma"))
    return Inversion(
        chosen,
        plan,
        noise_share,
        opened,
        alpha=float(alpha(chosen[0])) if callable(alpha) else 1.0,
        sigma=float(sigma(chosen[-1])) if callable(sigma) else 1.0,
    )


def _ends(pipeline: Pipeline, solver: Solver, field: Field, final: str) -> tuple[tuple[float, float], float, bool]:
    """First and last time, how much noise the first state has, and whether a prediction meets the source end."""
    path, (low, high) = pipeline.path, field.span(asked_by(solver, pipeline.path))
    begin, end = high, low
    if isinstance(solver, TableSolver) and hasattr(path, "span"):
        space = solver.space_on(path)
        end = low = low if solver.starts_blind else max(low, path.span(space, ())[0])
        begin = min(high, path.span(space, ())[1])
        if space != Prediction.VELOCITY:
            end = max(low, path.span(Prediction.NOISE, ())[0])
    closes = final == "data" and (high < 1.0 or bool(declared(path, "closing")))
    known = Prediction.DATA in path.provides and hasattr(path, "alpha")
    return (begin, end), (1.0 if closes else 0.5 if begin < high else 0.0) * known, end > low


def _given_times(times: Sequence[float], end: float, begin: float) -> Tensor:
    """The caller's grid, falling; what lies beyond where this solver can go is moved there."""
    falling = sorted(set(torch.tensor(times, dtype=torch.float64).clamp(end, begin).tolist()), reverse=True)
    if len(falling) < 2 or falling[0] != begin or falling[-1] != end:
        raise TimeError(
            f"times must reach from the data, t = {begin:.6g}, to the source, t = {end:.6g}; got {max(times):.6g} to "
            f"{min(times):.6g}: a source sample is known only at the source"
        )
    return check_times(falling)
