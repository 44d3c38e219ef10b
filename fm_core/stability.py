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
  up to four nodes, so that orders up to 4 are decided, and higher ones are bounded from above. It is the order of the
  method with its history: on a uniform grid a start of rising orders caps that of the whole at 2, or 3 if corrected.

References:
    Butcher 2016, Numerical methods for ordinary differential equations, 23 (stability), 31 (trees), 40 (consistency).
    Hairer, Nørsett & Wanner 1993, III.3 (root condition). https://doi.org/10.1007/978-3-540-78862-1
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fm_core.errors import ArgumentError, TimeError
from fm_core.gaussian import check_times
from fm_core.plan import Plan
from fm_core.plan_export import run_numpy
from fm_core.prediction import Prediction
from fm_core.protocols import ProbabilityPath

if TYPE_CHECKING:
    from fm_core.table_solver import TableSolver

__all__ = ["amplification", "order_of", "zero_stability"]

Vector = NDArray[np.float64]

ROUNDING = 1e-13
"""Root mean square below which an error is rounding."""

DOUBLINGS = 6
AGREE = 0.1
"""Orders of two doublings that differ by less are that of the method."""


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
    >>> import torch
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
    """The order to which a solver's errors at the end of `span` fall, without a network.

    The root mean square over several equations, whose errors do not change sign at once, is measured with N = `steps`,
    2N, 4N, … on grids that begin and end with steps so small that it does not matter of which order they are: what a
    history that has yet to be gathered costs, or orders that fall in the last steps, is not seen. N is doubled until
    two slopes agree, or errors are rounding; the last slope is returned.

    Args:
        solver: A deterministic table solver for any number of steps.
        path: Gaussian path.
        steps: The fewest steps, ≥ 4.
        span: A rising interval inside which the path is smooth.

    Returns:
        The order; ∞ if there is no error but rounding.

    Raises:
        ArgumentError: For a solver that is no table, or of one number of steps.
        TimeError: For one that adds noise, or a span that does not rise.

    >>> from fm_core import build
    >>> round(order_of(build("solver", "rk4"), build("path", "linear")), 1)
    4.0
    """
    from fm_core.testing.fields import settled

    _require_any_steps(solver)
    low, high = check_times(span).tolist()
    if steps < 4 or low > high:
        raise TimeError(f"an order is measured from 4 steps on, over a rising span; got steps={steps} and span={span}")
    before, slope = math.inf, math.inf
    for doubling in range(DOUBLINGS):
        now = _error(_on_velocity(solver.plan(path, settled(steps << doubling, low, high)), path))
        if now < ROUNDING:
            break
        if doubling:
            previous, slope = slope, math.log2(before / now)
            if abs(slope - previous) < AGREE:
                break
        before = now
    return slope


def _require_any_steps(solver: TableSolver) -> None:
    from fm_core.table_solver import TableSolver

    if not isinstance(solver, TableSolver):
        raise ArgumentError(
            "an order is read off the tables of a solver with a fixed grid (heun, unipc, …); got "
            f"{type(solver).__name__}, which makes none"
        )
    if solver.steps is not None:
        raise ArgumentError(
            f"an order is how errors fall with the number of steps, and this table is of {solver.steps} alone; "
            "fm_core.stability.amplification and zero_stability read a single table"
        )


def _error(plan: Plan) -> float:
    """Root mean square over the equations of the error in the last state."""
    start, end = plan.t0, plan.state_times[-1]
    exact = _f(end) + np.exp(_integral(end) - _integral(start))

    def velocity(y: Vector, t: float) -> Vector:
        return _slope(t) + _a(t) * (y - _f(t))

    with np.errstate(over="ignore", invalid="ignore"):  # as of a method that diverges
        *_, (_, last) = run_numpy(plan, velocity, _f(start) + 1.0)
        return float(np.sqrt(np.mean((last - exact) ** 2)))


_PHASE = np.array([0.0, 0.7, 1.4])
_NONE, _ALL = np.zeros(3), np.ones(3)
_RATE = np.array([-2.0, -1.0, 1.5])


def _equations(*groups: Vector) -> Vector:
    """`(9, 1)`: three quadratures, three autonomous linear equations, and three mixed ones."""
    return np.concatenate(groups)[:, None]


def _f(t: float) -> Vector:
    return _equations(np.sin(3 * t + _PHASE), _NONE, np.cos(2 * t + _PHASE))


def _slope(t: float) -> Vector:
    return _equations(3 * np.cos(3 * t + _PHASE), _NONE, -2 * np.sin(2 * t + _PHASE))


def _a(t: float) -> Vector:
    return _equations(_NONE, _RATE, _ALL - 3 * t)


def _integral(t: float) -> Vector:
    """∫a."""
    return _equations(_NONE, _RATE * t, _ALL * (t - 1.5 * t * t))
