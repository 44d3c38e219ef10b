"""Where every solver ends: on the exact flow, the nearer the more steps, over any interval, there and back.

References:
    Hairer, Nørsett & Wanner 1993, II.3 (order of convergence). https://doi.org/10.1007/978-3-540-78862-1
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from fm_core.errors import FMError
from fm_core.field import Field
from fm_core.gaussian import GaussianPath
from fm_core.prediction import Prediction
from fm_core.protocols import declared
from fm_core.randomness import make_generator
from fm_core.testing.fields import (
    FROM,
    GAUSSIAN,
    MIXTURE,
    PATHS,
    TO,
    exact_states,
    grid,
    power_of,
    run,
    settled,
    start,
)
from fm_core.testing.kit import Failed, Skipped, Subject, at_most, check_of, worst_of
from fm_core.testing.solvers import adaptive, deterministic, free, times_for

__all__: list[str] = []

SWITCHES = ("eta", "level", "s_churn", "tau")
"""Options by which solvers of the literature turn their noise off."""


@check_of("solver")
def flow_of_a_gaussian(subject: Subject) -> float:
    """On Gaussian data it follows the closed-form flow, x_s = α_s·m + c_s/c_t·(x − α_t·m) with c² = α²·s² + σ²."""
    solver, worst = free(subject), 0.0
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
    """On a mixture, twice the steps of a solver of order p leave at most about 2^−p of its error.

    Whatever p is: the first steps are so small that a history which has yet to be gathered does not cap it.
    """
    solver, slowest = free(subject), math.inf
    deterministic(solver)
    if adaptive(solver):
        raise Skipped("it chooses its own steps")
    least = solver.order - 0.35
    for path in PATHS.values():
        x = start(path, MIXTURE, FROM)
        exact = exact_states(path, MIXTURE, x, [FROM, TO])[-1]

        def error(n: int, path: GaussianPath = path, x: Tensor = x, exact: Tensor = exact) -> float:
            return float((run(solver, path, MIXTURE, x, settled(n)).x - exact).norm())

        slowest = min(slowest, power_of(error, (24, 48, 96), least))
    if slowest < least:
        raise Failed(f"twice the steps leave 2^−{slowest:.2f} of the error; order {solver.order} is declared", slowest)
    return slowest if math.isfinite(slowest) else float(solver.order)


@check_of("solver")
def any_interval(subject: Subject) -> float:
    """From any time to any later one it follows the flow: a first or last step is not taken for one at t = 0 or 1."""
    solver, path = free(subject), PATHS["linear"]
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
    solver, path = free(subject), PATHS["linear"]
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
    solver, path = free(subject), PATHS["trigonometric"]
    x = start(path, MIXTURE, FROM)
    if declared(solver, "stochastic"):
        try:
            solver.solve(MIXTURE.field(path), x, grid(4).flip(0), generator=make_generator(5))
        except (FMError, ValueError, NotImplementedError):
            return 0.0
        raise Failed("it is stochastic and ran a falling grid: noise cannot be undone, so it must refuse")

    @functools.cache
    def error(n: int) -> float:
        times = times_for(solver, n) if adaptive(solver) else settled(n)
        there = run(solver, path, MIXTURE, x, times).x
        return float((run(solver, path, MIXTURE, there, times.flip(0)).x - x).abs().max())

    least = solver.order - 0.5
    if not adaptive(solver) and (power := power_of(error, (24, 48, 96), least, rounding=1e-9)) < least:
        raise Failed(
            f"back and forth misses by {error(24):.2g} with 24 steps and by {error(48):.2g} with 48: like order "
            f"{power:.2f}; order {solver.order} is declared",
            power,
        )
    return at_most(error(48), 0.1, "there and back misses the start by")


@check_of("solver")
def zero_noise_is_the_flow(subject: Subject) -> float:
    """With its noise turned off (option eta, level, s_churn, …) it is a solver of the probability flow."""
    switch = next((name for name in SWITCHES if subject.takes(name)), None)
    if switch is None:
        raise Skipped(f"it is not built with one of the options {', '.join(SWITCHES)}")
    solver = free(subject, **{switch: 0.0})
    if declared(solver, "stochastic"):
        raise Failed(f"{switch}=0 leaves it declared stochastic")
    path = PATHS["trigonometric"]
    x = start(path, MIXTURE, FROM)
    exact = exact_states(path, MIXTURE, x, [FROM, TO])[-1]
    error = float((run(solver, path, MIXTURE, x, grid(256)).x - exact).abs().max())
    return at_most(error, 0.05, f"with {switch}=0, distance from the probability flow after 256 steps")
