"""What a plan's coefficients say without a network: order, stability on the test equation, and zero-stability.

Folded onto the velocity (`plan.rebase`), a deterministic plan is a method for `y' = u(y, t)`. On `u = μ·y` every state
is a polynomial in μ times y_0, and the last one is R(μ)·y_0 where the flow is e^{μT}·y_0, T = t_end − t_0.

- `amplification(plan, path, mu)` is R(μ); its growth over |e^{μT}| is how much stiffness costs.
- `zero_stability(plan, path)` is the most that a perturbation of a state, at any row, is worth in the last state when
  the network adds nothing (μ = 0): 1 for one-step methods, bounded however fine the grid for any method that
  converges (Dahlquist's root condition), growing with the number of steps for one that does not.
- `order_of(solver, path)` is the order measured on scalar equations with closed solutions,

      u(y, t) = f'(t) + a(t)·(y − f(t)),    y(t) = f(t) + (y_0 − f(t_0))·e^{∫a},

  linear in y with every mixed derivative of t and y. Their elementary differentials are those of all rooted trees with
  up to four nodes, so that orders up to 4 are decided, and higher ones are bounded from above.

References:
    Butcher 2016, Numerical methods for ordinary differential equations, 23 (stability), 31 (trees), 40 (consistency).
    Hairer, Nørsett & Wanner 1993, III.3 (root condition). https://doi.org/10.1007/978-3-540-78862-1
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from fm_core.errors import TimeError
from fm_core.plan import Plan
from fm_core.plan_export import run_numpy
from fm_core.prediction import Prediction
from fm_core.protocols import ProbabilityPath

if TYPE_CHECKING:
    from fm_core.table_solver import TableSolver

__all__ = ["amplification", "order_of", "zero_stability"]

Vector = NDArray[np.float64]


def _on_velocity(plan: Plan, path: ProbabilityPath) -> Plan:
    if plan.stochastic:
        raise TimeError("this plan adds noise: order and stability of its mean are not those of an ODE method")
    return plan.rebase(path, Prediction.VELOCITY)


def amplification(plan: Plan, path: ProbabilityPath, mu: complex) -> complex:
    """R(μ): the last state over the first on `u = μ·y`.

    Args:
        plan: A deterministic plan.
        path: The Gaussian path that it was made for.
        mu: μ, in units of 1/t.

    >>> from fm_core import build
    >>> path, grid = build("path", "linear"), torch.tensor([0.0, 1.0], dtype=torch.float64)
    >>> amplification(build("solver", "heun").plan(path, grid), path, -0.5)  # 1 + μ + μ²/2
    (0.625+0j)
    """
    *_, (_, last) = run_numpy(_on_velocity(plan, path), lambda y, t: mu * y, np.ones((1, 1), dtype=np.complex128))
    return complex(last[0, 0])


def zero_stability(plan: Plan, path: ProbabilityPath) -> float:
    """The most that a unit perturbation of one state is worth in the last state, the velocity being zero.

    Args:
        plan: A deterministic plan.
        path: The Gaussian path that it was made for.
    """
    folded = _on_velocity(plan, path)
    worth = [0.0] * (len(folded.rows) + 1)  # backwards: the adjoint of the recursion
    worth[-1] = 1.0
    for s in range(len(folded.rows) - 1, -1, -1):
        for k, weight in folded.rows[s].states:
            worth[k] += weight * worth[s + 1]
    return max(map(abs, worth))


def order_of(
    solver: TableSolver, path: ProbabilityPath, *, steps: int = 24, span: tuple[float, float] = (0.25, 0.75)
) -> float:
    """The order of a solver's error at the end of `span`, without a network: least over several equations.

    Args:
        solver: A deterministic table solver.
        path: Gaussian path.
        steps: Steps of the coarse grid; the fine one has twice as many.
        span: An interval inside which the path is smooth.

    >>> from fm_core import build
    >>> round(order_of(build("solver", "rk4"), build("path", "linear")), 1)
    4.0
    """
    plans = []
    for n in (steps, 2 * steps):
        times = torch.linspace(*span, n + 1, dtype=torch.float64)
        plans.append(_on_velocity(solver.plan(path, times), path))
    errors = [np.array([_error(plan, equation) for equation in _EQUATIONS]) for plan in plans]
    return float(np.log2(errors[0] / errors[1]).min())


def _error(plan: Plan, equation: tuple[Callable[[float], float], ...]) -> float:
    f, slope, a, integral = equation
    (start, end), y0 = (plan.t0, plan.state_times[-1]), f(plan.t0) + 1.0
    exact = f(end) + math.exp(integral(end) - integral(start))
    *_, (_, last) = run_numpy(plan, lambda y, t: slope(t) + a(t) * (y - f(t)), np.array([[y0]]))
    return abs(float(last[0, 0]) - exact) + math.ulp(1.0)


_EQUATIONS: tuple[tuple[Callable[[float], float], ...], ...] = (
    (lambda t: math.sin(3 * t), lambda t: 3 * math.cos(3 * t), lambda t: 0.0, lambda t: 0.0),
    (lambda t: 0.0, lambda t: 0.0, lambda t: -2.0, lambda t: -2.0 * t),
    (lambda t: math.cos(2 * t), lambda t: -2 * math.sin(2 * t), lambda t: 1 - 3 * t, lambda t: t - 1.5 * t * t),
)
"""f, f', a and ∫a: a quadrature, the autonomous linear equation, and a mixed one."""
