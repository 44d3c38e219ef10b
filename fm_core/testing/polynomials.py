"""Which polynomials a table integrates exactly: multistep errors that no Gaussian shows, it shows.

On Gaussian data E[x1|x_t] is constant along the mean, so a wrong weight of a second difference is not seen there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fm_core.gaussian import GaussianPath
from fm_core.plan import Plan
from fm_core.prediction import Prediction
from fm_core.protocols import declared
from fm_core.table_solver import TableSolver
from fm_core.testing.fields import PATHS, grid
from fm_core.testing.kit import Skipped, Subject, at_most, check_of
from fm_core.testing.tables import steps_from_exact, table_of

__all__ = ["VARIABLES"]

VARIABLES: dict[str, Callable[[GaussianPath, Tensor], Tensor]] = {
    "t": lambda path, t: t,
    "log_snr": lambda path, t: path.log_snr(t) / 2,
    "noise_to_signal": lambda path, t: path.sigma(t) / path.alpha(t),
}
"""What a solver's `exact_in` may name: the variable in which it integrates polynomial predictions exactly."""


@check_of("solver")
def polynomial_exactness(subject: Subject) -> float:
    """Predictions that are polynomials of degree < order in the variable `exact_in` are integrated exactly.

    Velocity solvers: in t. Data and noise solvers say which: half the log-SNR, λ = log(α/σ), or σ/α.
    """
    solver = table_of(subject)
    flow = solver.space == Prediction.VELOCITY and not solver.stochastic
    variable = declared(solver, "exact_in") or ("t" if flow else None)
    if variable is None:
        raise Skipped("it names no variable exact_in; what its history weighs, local_order measures")
    if solver.stochastic and solver.space != Prediction.DATA:
        raise Skipped(f"the kit has no closed form for a stochastic {solver.space} solver")
    worst = 0.0
    for path in PATHS.values():
        plan = solver.plan(path, grid(4 * solver.order + 4))
        for degree in range(_degree(solver, variable)):
            power = functools.partial(_power, path, VARIABLES[variable], degree)
            errors = _polynomial_errors(plan, path, power)
            # Orders may rise in the first steps, and fall in the last.
            worst = max(worst, *errors[solver.order + 1 : -solver.order - 1])
    return at_most(worst, 1e-9, f"error of a step on a polynomial in {variable}")


def _degree(solver: TableSolver, variable: str) -> int:
    """Degrees that are exact: as many as the order. A stage is a step of order 1 to its own time, so a solver with
    stages has no more than two.
    """
    return solver.order if solver.space == Prediction.VELOCITY or solver.evals_per_step == 1 else min(solver.order, 2)


def _power(path: GaussianPath, of: Callable[[GaussianPath, Tensor], Tensor], degree: int, t: Tensor) -> Tensor:
    return of(path, t) ** degree


def _polynomial_errors(plan: Plan, path: GaussianPath, poly: Callable[[Tensor], Tensor]) -> list[float]:
    """The errors of all steps, each from exact earlier states."""
    ones = [torch.ones(1, dtype=torch.float64)] * len(plan.times)
    # Under a prediction of 0 a step shows how it carries the state on, and so how much noise it makes up for.
    carried = [float(new) for new, _ in steps_from_exact(plan, ones, lambda _, t: torch.zeros(1, dtype=torch.float64))]
    exact = ones[:1]
    for (t, s), carry in zip(pairwise(plan.times), carried, strict=True):
        exact.append(_integrated(plan.space, path, exact[-1], t, s, carry, poly))
    made = steps_from_exact(plan, exact, lambda _, t: poly(torch.tensor([t], dtype=torch.float64)))
    return [float((new - want).abs()) for new, want in made]


def _integrated(
    space: Prediction,
    path: GaussianPath,
    x: Tensor,
    t: float,
    s: float,
    carry: float,
    poly: Callable[[Tensor], Tensor],
) -> Tensor:
    """The exact step under predictions that depend on time alone, by Gauss–Legendre.

    velocity: x_s = x_t + ∫u·dτ;  noise: x_s/α_s = x_t/α_t + ∫N·d(σ/α);  data: x_s·κ_s = x_t·κ_t + ∫D·d((α/σ)^p) with
    κ = (α/σ)^p/α, where p = 1 for the flow, and 1 + τ² for the mean of the reverse SDE with τ² times its usual noise,
    which is read off `carry` = κ_t/κ_s.
    """
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(40))
    tau, h = t + (s - t) * (nodes + 1) / 2, (s - t) / 2
    alpha, sigma = (f(torch.tensor([t, s], dtype=torch.float64)) for f in (path.alpha, path.sigma))
    if space == Prediction.VELOCITY:
        return x + h * (weights * poly(tau)).sum()
    if space == Prediction.NOISE:
        slope = _slope(lambda v: path.sigma(v) / path.alpha(v), tau)
        return alpha[1] * (x / alpha[0] + h * (weights * poly(tau) * slope).sum())
    if space != Prediction.DATA:
        raise Skipped(f"the kit has no closed form for a {space} solver")
    ratio = alpha / sigma
    p = math.log(alpha[1] / alpha[0] / carry) / math.log(ratio[1] / ratio[0])
    slope = _slope(lambda v: (path.alpha(v) / path.sigma(v)) ** p, tau)
    kappa = ratio**p / alpha
    return (x * kappa[0] + h * (weights * poly(tau) * slope).sum()) / kappa[1]


def _slope(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """The derivative, elementwise."""
    with torch.enable_grad():
        t = t.clone().requires_grad_()
        return torch.autograd.grad(function(t).sum(), t)[0]
