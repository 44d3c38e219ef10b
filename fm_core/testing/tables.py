"""What solvers that are tables keep besides: their order step by step, the meaning of η, the freedom of the clock.

A multistep method starts at a lower order, and the error of those first steps caps what a whole run shows. So its order
is measured at one step of the middle, from exact earlier states: the local error is of order p + 1.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from attrs import evolve
from torch import Tensor

from fm_core.executing import execute
from fm_core.field import Field, Model
from fm_core.gaussian import GaussianPath
from fm_core.plan import Plan
from fm_core.protocols import Solver, declared
from fm_core.randomness import make_generator
from fm_core.table_solver import TableSolver
from fm_core.testing import flows as _flows, laws as _laws, runs as _runs  # noqa: F401  # their checks come before
from fm_core.testing.fields import FROM, MIXTURE, PATHS, Warped, exact_states, grid, power_of, run, start
from fm_core.testing.kit import Failed, Skipped, Subject, at_most, check_of
from fm_core.testing.solvers import path_for, solver_of, times_for

__all__ = ["as_table", "steps_from_exact", "table_of"]


def table_of(subject: Subject) -> TableSolver:
    """The solver under examination; the check is skipped if it is no table, or one for a single grid."""
    solver = as_table(solver_of(subject))
    if solver.steps is not None:
        raise Skipped("it is made for one grid, and for one network: what it does on others says nothing")
    return solver


def as_table(solver: Solver) -> TableSolver:
    """The solver; the check is skipped if it is no table."""
    if not isinstance(solver, TableSolver):
        raise Skipped("it is not a table")
    return solver


def steps_from_exact(
    plan: Plan, exact: Sequence[Tensor], predict: Callable[[Tensor, float], Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """What every step of a plan makes, all earlier grid points being exact.

    Args:
        plan: A plan, taken without its noise.
        exact: States at all grid points of the plan.
        predict: The prediction of the plan's space at a state and its time.

    Returns:
        For every grid point from the second on, the state made and the exact one.
    """
    states, predictions, point = [exact[0]], dict[int, Tensor](), 0
    times = plan.state_times
    for row in plan.rows:
        for j, _ in row.predictions:
            if j not in predictions:
                predictions[j] = predict(states[j], times[j])
        terms = [w * states[k] for k, w in row.states] + [w * predictions[j] for j, w in row.predictions]
        new = torch.stack(terms).sum(0)
        if row.accepted:
            point += 1
            yield new, exact[point]
            new = exact[point]
        states.append(new)


@check_of("solver")
def local_order(subject: Subject) -> float:
    """A step in the middle, from exact earlier states, errs by a power p + 1 of its length, p being the order.

    Of a stochastic table it is the mean of a step, under predictions that depend on time alone: a history or stages
    with wrong weights show, as they do not where E[x1|x_t] is constant along the mean, on Gaussian data.
    """
    solver = table_of(subject)
    if solver.stochastic and solver.order == 1:
        raise Skipped("it is stochastic and of order 1: law_of_the_output has all of it")
    error, least = _forced_error if solver.stochastic else _local_error, math.inf
    for path in PATHS.values():
        power = power_of(functools.partial(error, solver, path), (16, 32, 64), solver.order + 0.65, rounding=1e-13)
        least = min(least, power - 1)
    if least < solver.order - 0.35:
        raise Failed(f"a step errs like one of order {least:.2f}; order {solver.order} is declared", least)
    return least if math.isfinite(least) else float(solver.order)


def _local_error(solver: TableSolver, path: GaussianPath, n: int) -> float:
    """Root mean square of the errors of the steps from the middle of [0.25, 0.6] to its third quarter."""
    plan = solver.plan(path, grid(n, 0.25, 0.6))
    exact = exact_states(path, MIXTURE, start(path, MIXTURE, 0.25), plan.times)
    return _middle(steps_from_exact(plan, exact, functools.partial(MIXTURE.predict, path, plan.space)), n)


def _forced_error(solver: TableSolver, path: GaussianPath, n: int) -> float:
    """The same for a stochastic table without its noise, whose predictions are sin 5t, on [0.52, 0.85].

    What its mean is exactly depends on how much noise it makes up for, and so is taken from the table itself on a grid
    of 256 steps, which holds that of n: it errs by a share (n/256)^p of what is measured, for its error changes along a
    step by no more than that share of the step's.
    """
    plans = [solver.plan(path, grid(steps, 0.52, 0.85)) for steps in (n, _FINEST)]
    plan, fine = (evolve(plan, rows=tuple(evolve(row, noise=0.0) for row in plan.rows)) for plan in plans)
    seen: list[Tensor] = []
    network = Model(lambda x, t: torch.sin(5 * t).reshape(-1, 1).expand_as(x), plan.space)
    execute(fine, Field(network, path), torch.ones(1, 1, dtype=torch.float64), on_step=lambda t, x: seen.append(x))
    exact = seen[:: _FINEST // n]
    return _middle(steps_from_exact(plan, exact, lambda x, t: torch.sin(torch.full_like(x, 5 * t))), n)


_FINEST = 256


def _middle(steps: Iterable[tuple[Tensor, Tensor]], n: int) -> float:
    """Root mean square of the errors of the steps of the third quarter."""
    made = list(steps)[n // 2 : 3 * n // 4]
    return math.sqrt(sum(float((new - want).square().mean()) for new, want in made) / len(made))


@check_of("solver")
def plans_are_values(subject: Subject) -> None:
    """The same grid gives the same table, whatever was asked before, and the grid's own points, to the last bit."""
    solver = as_table(solver_of(subject))
    path, times = path_for(solver), times_for(solver, 7)
    first = solver.plan(path, times)
    if solver.steps is None:
        solver.plan(PATHS["trigonometric"], grid(5))
    if solver.plan(path, times) != first:
        raise Failed("a second table for the same path and grid is another one: the solver keeps a state")
    if list(first.times) != times.tolist():
        raise Failed(f"the table's grid points are {list(first.times)}, the grid is {times.tolist()}")
    trace = run(solver, path, MIXTURE, start(path, MIXTURE, float(times[0]), 2), times, generator=make_generator(5))
    if trace.calls != first.nfe:
        raise Failed(f"its table says {first.nfe} network calls; a run made {trace.calls}", trace.calls)


@check_of("solver")
def eta_is_the_papers(subject: Subject) -> float:
    """With an option `eta`, a step's noise is η times √β̃, DDIM's equation 16: neither η·σ nor √η·√β̃.

    On any Gaussian path β̃ = σ_s²·(1 − r²) with r = α_t·σ_s/(α_s·σ_t).
    """
    if not subject.takes("eta"):
        raise Skipped("it is not built with an option eta")
    worst = 0.0
    for eta in (0.25, 1.0):
        solver = as_table(solver_of(subject, eta=eta))
        for path in PATHS.values():
            plan, times = solver.plan(path, grid(6)), grid(6)
            if len(plan.rows) != 6:
                raise Skipped("a step has several rows: which noise is whose is not known")
            alpha, sigma = path.alpha(times), path.sigma(times)
            ratio = alpha[:-1] * sigma[1:] / (alpha[1:] * sigma[:-1])
            want = eta * sigma[1:] * (1 - ratio.square()).sqrt()
            got = torch.tensor([row.noise for row in plan.rows], dtype=torch.float64)
            worst = max(worst, float((got - want).abs().max()))
    return at_most(worst, 1e-10, "a step's noise is off from η·√β̃ by")


@check_of("solver")
def clocks_do_not_matter(subject: Subject) -> float:
    """On a path with another clock, at the same noise levels, it gives the same states.

    It holds where `exact_in` is λ or σ/α.
    """
    solver = table_of(subject)
    if declared(solver, "exact_in") not in {"log_snr", "noise_to_signal"}:
        raise Skipped("it names no variable exact_in that is free of the clock")
    worst = 0.0
    for path in PATHS.values():
        warped = Warped(path.schedule)
        other = GaussianPath(warped)
        x, times = start(path, MIXTURE, FROM, 4), grid(9)
        ends = [
            run(solver, p, MIXTURE, x, t, predicts=solver.space_on(p), generator=make_generator(0)).x
            for p, t in ((path, times), (other, warped.own_time(times)))
        ]
        worst = max(worst, float((ends[0] - ends[1]).abs().max()))
    return at_most(worst, 1e-8, "the same noise levels on another clock end elsewhere by")
