"""What solvers that are tables keep besides: their order step by step, the law of their output, the meaning of η.

A multistep method starts at a lower order, and the error of those first steps caps what a whole run shows. So its order
is measured at one step of the middle, from exact earlier states: the local error is of order p + 1.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from fm_core.gaussian import GaussianPath
from fm_core.law import state_laws
from fm_core.plan import Plan
from fm_core.protocols import Solver, declared
from fm_core.randomness import make_generator
from fm_core.table_solver import TableSolver
from fm_core.testing import flows as _flows, runs as _runs  # noqa: F401  # their checks come before these
from fm_core.testing.fields import FROM, MIXTURE, PATHS, TO, Warped, exact_states, grid, run, start
from fm_core.testing.kit import Failed, Skipped, Subject, at_most, check_of
from fm_core.testing.solvers import solver_of

__all__ = ["as_table", "steps_from_exact", "table_of"]


def table_of(subject: Subject) -> TableSolver:
    """The solver under examination; the check is skipped if it is no table."""
    return as_table(solver_of(subject))


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
    """A step in the middle, from exact earlier states, errs by a power p + 1 of its length, p being the order."""
    solver = table_of(subject)
    if solver.stochastic:
        raise Skipped("it is stochastic: see law_of_the_output")
    least = math.inf
    for path in PATHS.values():
        errors, best = [_local_error(solver, path, 16)], -math.inf
        for n in (32, 64):  # what is not yet asymptotic at 16 steps is at 32
            errors.append(_local_error(solver, path, n))
            best = max(best, math.log2(errors[-2] / errors[-1]) - 1 if errors[-1] > 1e-13 else math.inf)
            if best >= solver.order - 0.35:
                break
        least = min(least, best)
    if least < solver.order - 0.35:
        raise Failed(f"a step errs like one of order {least:.2f}; order {solver.order} is declared", least)
    return least if math.isfinite(least) else float(solver.order)


def _local_error(solver: TableSolver, path: GaussianPath, n: int) -> float:
    """Root mean square of the errors of the steps from the middle of [0.25, 0.6] to its third quarter."""
    plan = solver.plan(path, grid(n, 0.25, 0.6))
    exact = exact_states(path, MIXTURE, start(path, MIXTURE, 0.25), plan.times)
    predict = functools.partial(MIXTURE.predict, path, plan.space)
    made = list(steps_from_exact(plan, exact, predict))[n // 2 : 3 * n // 4]
    return math.sqrt(sum(float((new - want).square().mean()) for new, want in made) / len(made))


@check_of("solver")
def plans_are_values(subject: Subject) -> None:
    """The same grid gives the same table, whatever was asked before, and the grid's own points, to the last bit."""
    solver, path = table_of(subject), PATHS["linear"]
    first = solver.plan(path, grid(7))
    solver.plan(PATHS["trigonometric"], grid(5))
    if solver.plan(path, grid(7)) != first:
        raise Failed("a second table for the same path and grid is another one: the solver keeps a state")
    if list(first.times) != grid(7).tolist():
        raise Failed(f"the table's grid points are {list(first.times)}, the grid is {grid(7).tolist()}")
    trace = run(solver, path, MIXTURE, start(path, MIXTURE, FROM, 2), grid(7), generator=make_generator(5))
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
def law_of_the_output(subject: Subject) -> float:
    """On Gaussian data the exact mean and variance of its output approach the path's as a power p of the step.

    Noise without the drift that makes up for it keeps a bias however many the steps.
    """
    solver, least = table_of(subject), math.inf
    mean, variance = (torch.tensor(values, dtype=torch.float64) for values in ([0.0, 1.0, -2.0], [0.3, 1.0, 2.5]))
    for path in PATHS.values():
        errors = []
        for n in (32, 64, 128):
            *_, (t, m, v) = state_laws(solver.plan(path, grid(n)), path, mean, variance)
            alpha, sigma = (f(torch.tensor(t, dtype=torch.float64)) for f in (path.alpha, path.sigma))
            wrong = torch.stack([m - alpha * mean, v - alpha.square() * variance - sigma.square()])
            errors.append(float(wrong.abs().max()))
        if errors[-1] > 1e-10:
            least = min(least, math.log2(errors[-2] / errors[-1]))
        at_most(errors[-1], 0.2, f"bias of the output's law after 128 steps to t = {TO}")
    expected = min(solver.order, 2) if solver.stochastic else 1
    if least < expected - 0.35:
        raise Failed(f"the bias falls like 1/N^{least:.2f}; weak order {solver.order} is declared", least)
    return least if math.isfinite(least) else float(solver.order)


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
            run(solver, p, MIXTURE, x, t, predicts=solver.space, generator=make_generator(0)).x
            for p, t in ((path, times), (other, warped.own_time(times)))
        ]
        worst = max(worst, float((ends[0] - ends[1]).abs().max()))
    return at_most(worst, 1e-8, "the same noise levels on another clock end elsewhere by")
