"""Stochastic Heun for the SDEs of a path, as a table on the velocity: weak order 2.

With the drift `b(x, t) = u − c·N` and `G² = ∫_t^s g²`, a step from t to s = t + h is

    y1 = x + h·b(x, t) + G·z,    y2 = y1 + (h/2)·(b(y1, s) − b(x, t)),

the same z in both, which is why y2 is made from y1. The noise is additive (g does not depend on x), and that is what
makes one z enough. With b and its derivatives at (x, t), L = ∂_t + b·∂_x + ½g²·∂_xx and E z² = 1:

    E y2   = x + h·b + (h/2)·(h·b_t + h·b·b_x + ½G²·b_xx) + O(h³) = x + h·b + (h²/2)·L b + O(h³)    (G² = g²·h + O(h²)),
    Var y2 = G²·(1 + (h/2)·b_x)² + O(h³) = ∫g² + h²·g²·b_x + O(h³),

which are the mean and the variance of the SDE: `E X = x + h·b + (h²/2)·L b + O(h³)`, and the linearised flow
`exp((s − τ)·b_x)` carries the noise of τ to s, so `Var X = ∫ g²(τ)·(1 + 2(s − τ)·b_x) dτ + O(h³)`. The third central
moments are O(h³) in both, the fourth `3G⁴ + O(h³)`. So all moments up to the fifth agree to O(h³), and the weak order
is 2, provided that G² is exact to O(h³): here by Gauss–Legendre with three nodes (exact for g² of degree 5), so that no
end of the step is looked at.

A last step to σ = 0 under a g of one's own is Euler–Maruyama's: c = g²/(2σ) is not known there. Its error is O(h²),
once; so is that of the step in which the default g meets its bound.

References:
    Kloeden & Platen 1992, 14.2, 15.1 (weak order 2, additive noise). https://doi.org/10.1007/978-3-662-12616-5
    Roberts 2012. https://arxiv.org/abs/1210.0933
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from fm_core import Plan, Prediction, ProbabilityPath, Row, TableSolver
from fm_plugins.score_sde.reverse_sde import NoiseLevel, ReverseSDE, starts

__all__ = ["stochastic_heun", "stochastic_heun_plan"]

NODES = (-math.sqrt(0.6), 0.0, math.sqrt(0.6))
WEIGHTS = (5 / 9, 8 / 9, 5 / 9)
"""Gauss–Legendre on [−1, 1], three nodes."""


def stochastic_heun_plan(sde: ReverseSDE, path: ProbabilityPath, times: Tensor) -> Plan:
    """The table of stochastic Heun on a grid, two rows a step, in the velocity.

    Args:
        sde: Drift and noise level.
        path: Gaussian path.
        times: Grid, float64, shape (N+1,), strictly increasing (or decreasing, without noise).
    """
    h, of_x, of_u = starts(sde, path, times)
    end_x, end_u = sde.drift(path, times[1:], h.abs())
    columns = (times[1:], h, of_x, of_u, end_x, end_u, _noise(sde, path, times))
    alone = sde.ends(path, times[1:]).tolist()
    rows: list[Row] = []
    for euler, (s, step, a, b, c, d, std) in zip(alone, zip(*(x.tolist() for x in columns), strict=True), strict=True):
        x, y = len(rows), len(rows) + 1
        rows.append(Row(s, ((x, 1 + step * a),), ((x, step * b),), std, accepted=euler))
        if not euler:
            half = step / 2
            states = ((y, 1 + half * c), *(((x, -half * a),) if a else ()))
            rows.append(Row(s, states, ((x, -half * b), (y, half * d))))
    return Plan(Prediction.VELOCITY, float(times[0]), rows)


def _noise(sde: ReverseSDE, path: ProbabilityPath, times: Tensor) -> Tensor:
    """G = (∫g²)^½ of every step, `(N,)`."""
    h, middle = times.diff(), (times[1:] + times[:-1]) / 2
    mean_squares = sum(
        (w / 2 * sde.diffusion(path, middle + node * h / 2, h.abs()) for node, w in zip(NODES, WEIGHTS)),
        torch.zeros_like(h),
    )
    return (mean_squares * h.abs()).sqrt()


def stochastic_heun(level: float = 1.0, g: NoiseLevel | None = None) -> TableSolver:
    """Stochastic Heun for additive noise: weak order 2, two evaluations per step.

    y1 = x_t + h·b(x_t, t) + G·z,  x_s = y1 + h/2·(b(y1, s) − b(x_t, t)),  b = u − g²/(2σ)·N,  G² = ∫g²

    Args:
        level: Multiple of the default noise level, g² = level·2σ²·d(log α/σ)/dt; 0 is Heun's method for the ODE.
        g: Another noise level: a number, or a function `(path, t) -> g`, elementwise.

    Returns:
        A solver of the velocity, stochastic unless the noise level is 0.

    Raises:
        ValueError: If level or g is negative or not finite, or both are given.

    References:
        Kloeden & Platen 1992, 15.1. https://doi.org/10.1007/978-3-662-12616-5
    """
    sde = ReverseSDE(level, g)
    return TableSolver(
        functools.partial(stochastic_heun_plan, sde),
        space=Prediction.VELOCITY,
        order=2,
        evals_per_step=2,
        stochastic=sde.stochastic,
    )
