"""Where every solver ends: on the exact flow, the nearer the more steps, over any interval, there and back.

References:
    Hairer, Nørsett & Wanner 1993, II.3 (order of convergence). https://doi.org/10.1007/978-3-540-78862-1
    Kloeden & Platen 1992, 9.7 (weak convergence). https://doi.org/10.1007/978-3-662-12616-5
"""

from __future__ import annotations

import math
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from fm_core.errors import FMError
from fm_core.field import Field
from fm_core.prediction import Prediction
from fm_core.protocols import Solver, declared
from fm_core.randomness import make_generator
from fm_core.table_solver import TableSolver
from fm_core.testing.fields import FROM, GAUSSIAN, MIXTURE, PATHS, TO, exact_states, grid, run, start
from fm_core.testing.kit import Failed, Skipped, Subject, at_most, check_of, worst_of
from fm_core.testing.solvers import adaptive, deterministic, only_grid, solver_of, times_for

__all__: list[str] = []

SWITCHES = ("eta", "level", "s_churn", "tau")
"""Options by which solvers of the literature turn their noise off."""


def _free(subject: Subject, **options: Any) -> Solver:
    """The solver under examination, on any grid.

    Raises:
        Skipped: If it is made for one, on which no order can be measured.
    """
    solver = solver_of(subject, **options)
    if only_grid(solver) is not None:
        raise Skipped("it is made for one grid, and for one network: what it does on others says nothing")
    return solver


@check_of("solver")
def flow_of_a_gaussian(subject: Subject) -> float:
    """On Gaussian data it follows the closed-form flow, x_s = α_s·m + c_s/c_t·(x − α_t·m) with c² = α²·s² + σ²."""
    solver, worst = _free(subject), 0.0
    deterministic(solver)
    for path in PATHS.values():
        x, ends = start(path, GAUSSIAN, FROM), torch.tensor([FROM, TO], dtype=torch.float64)
        alpha, sigma = path.alpha(ends), path.sigma(ends)
        spread = (alpha.square() * GAUSSIAN.stds[0] ** 2 + sigma.square()).sqrt()
        mean = alpha[:, None] * GAUSSIAN.means[0]
        exact = mean[1] + spread[1] / spread[0] * (x - mean[0])
        got = run(solver, path, GAUSSIAN, x, times_for(solver, 128)).x
        worst = max(worst, float((got - exact).abs().max()))
    return at_most(worst, 1e-2, "distance from the closed-form flow after 128 steps")


@check_of("solver")
def error_falls_with_the_steps(subject: Subject) -> float:
    """On a mixture, twice the steps of a solver of order p leave at most about 2^−p of its error."""
    solver = _free(subject)
    deterministic(solver)
    if adaptive(solver):
        raise Skipped("it chooses its own steps")
    slowest = math.inf
    for path in PATHS.values():
        x = start(path, MIXTURE, FROM)
        exact = exact_states(path, MIXTURE, x, [FROM, TO])[-1]
        errors = [float((run(solver, path, MIXTURE, x, grid(n)).x - exact).norm()) for n in (24, 48)]
        if errors[1] > 1e-10:  # below, rounding rules
            slowest = min(slowest, math.log2(errors[0] / errors[1]))
    # Multistep methods start at a lower order, which caps the global one; tables are measured step by step besides.
    least = min(solver.order, 2) - 0.35
    if slowest < least:
        raise Failed(f"twice the steps leave 2^−{slowest:.2f} of the error; order {solver.order} is declared", slowest)
    return slowest if math.isfinite(slowest) else float(solver.order)


@check_of("solver")
def any_interval(subject: Subject) -> float:
    """From any time to any later one it follows the flow: a first or last step is not taken for one at t = 0 or 1."""
    solver, path = _free(subject), PATHS["linear"]
    deterministic(solver)

    def error(low: float, length: float) -> float:
        high = min(low + length, 0.97)
        x = start(path, MIXTURE, low, 3)
        exact = exact_states(path, MIXTURE, x, [low, high])[-1]
        return float((run(solver, path, MIXTURE, x, times_for(solver, 60, low, high)).x - exact).abs().max())

    low, length = st.floats(0.03, 0.8), st.floats(0.1, 0.5)
    return worst_of(error, 0.05, "distance from the flow after 60 steps", examples=6, low=low, length=length)


@check_of("solver")
def constant_velocity_on_an_interval(subject: Subject) -> float:
    """A constant velocity c over [0.3, 0.7] moves every state by 0.4·c, and over the falling interval back."""
    solver, path = _free(subject), PATHS["linear"]
    deterministic(solver)
    c = torch.tensor([1.5, -0.5, 0.25], dtype=torch.float64)
    x = torch.randn(4, 3, generator=make_generator(5), dtype=torch.float64)
    field = Field(_Constant(c), path)
    there = solver.solve(field, x.clone(), times_for(solver, 200, 0.3, 0.7))
    error = float((there - (x + 0.4 * c)).abs().max())
    if not declared(solver, "stochastic"):
        back = solver.solve(field, there.clone(), times_for(solver, 200, 0.3, 0.7).flip(0))
        error = max(error, float((back - x).abs().max()))
    return at_most(error, 1e-9 if Prediction.VELOCITY in solver.needs else 1e-2, "distance from x ± 0.4·c")


class _Constant:
    predicts = (Prediction.VELOCITY,)

    def __init__(self, c: Tensor) -> None:
        self.c = c

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        return self.c.to(x_t).expand_as(x_t)


@check_of("solver")
def inversion(subject: Subject) -> float:
    """On the falling grid it goes back to where it came from, to its order; a stochastic one refuses."""
    solver, path = _free(subject), PATHS["trigonometric"]
    x, errors = start(path, MIXTURE, FROM), []
    if declared(solver, "stochastic"):
        try:
            solver.solve(MIXTURE.field(path), x, grid(4).flip(0), generator=make_generator(5))
        except (FMError, ValueError, NotImplementedError):
            return 0.0
        raise Failed("it is stochastic and ran a falling grid: noise cannot be undone, so it must refuse")
    for n in (32, 64):
        times = times_for(solver, n)
        there = run(solver, path, MIXTURE, x, times).x
        errors.append(float((run(solver, path, MIXTURE, there, times.flip(0)).x - x).abs().max()))
    if not adaptive(solver) and errors[1] > 1e-9:
        slope, least = math.log2(errors[0] / errors[1]), min(solver.order, 2) - 0.5
        if not slope >= least:
            raise Failed(
                f"back and forth misses by {errors[0]:.2g} with 32 steps and by {errors[1]:.2g} with 64: like order "
                f"{slope:.2f}; order {solver.order} is declared",
                slope,
            )
    return at_most(errors[1], 0.1, "there and back misses the start by")


@check_of("solver")
def zero_noise_is_the_flow(subject: Subject) -> float:
    """With its noise turned off (option eta, level, s_churn, …) it is a solver of the probability flow."""
    switch = next((name for name in SWITCHES if subject.takes(name)), None)
    if switch is None:
        raise Skipped(f"it is not built with one of the options {', '.join(SWITCHES)}")
    solver = _free(subject, **{switch: 0.0})
    if declared(solver, "stochastic"):
        raise Failed(f"{switch}=0 leaves it declared stochastic")
    path = PATHS["trigonometric"]
    x = start(path, MIXTURE, FROM)
    exact = exact_states(path, MIXTURE, x, [FROM, TO])[-1]
    error = float((run(solver, path, MIXTURE, x, grid(256)).x - exact).abs().max())
    return at_most(error, 0.05, f"with {switch}=0, distance from the probability flow after 256 steps")


@check_of("solver")
def bias_of_samples(subject: Subject) -> float:
    """Of a stochastic solver that is no table, 4,000 samples of Gaussian data have its mean and standard deviation.

    A table's law is known exactly: see law_of_the_output.
    """
    solver, path, n = _free(subject), PATHS["trigonometric"], 4000
    if not declared(solver, "stochastic"):
        raise Skipped("it is not stochastic")
    if isinstance(solver, TableSolver):
        raise Skipped("it is a table: see law_of_the_output")
    end = run(
        solver, path, GAUSSIAN, start(path, GAUSSIAN, FROM, n), times_for(solver, 100), generator=make_generator(5)
    ).x
    alpha, sigma = (f(torch.tensor(TO, dtype=torch.float64)) for f in (path.alpha, path.sigma))
    spread = (alpha.square() * GAUSSIAN.stds[0] ** 2 + sigma.square()).sqrt()
    mean = (end.mean(0) - alpha * GAUSSIAN.means[0]).abs().max() / spread
    return at_most(float(max(mean, (end.std(0) / spread - 1).abs().max())), 0.1, "relative bias of mean or spread")
