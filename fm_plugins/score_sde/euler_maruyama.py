"""Euler–Maruyama for the SDEs of a path, as a table on the velocity."""

from __future__ import annotations

import functools

from torch import Tensor

from fm_core import Plan, Prediction, ProbabilityPath, Row, TableSolver
from fm_plugins.score_sde.reverse_sde import NoiseLevel, ReverseSDE, starts

__all__ = ["euler_maruyama", "euler_maruyama_plan"]


def euler_maruyama_plan(sde: ReverseSDE, path: ProbabilityPath, times: Tensor) -> Plan:
    """The table of Euler–Maruyama on a grid, N rows in the velocity.

    Args:
        sde: Drift and noise level.
        path: Gaussian path.
        times: Grid, float64, shape (N+1,), strictly increasing (or decreasing, without noise).
    """
    h, of_x, of_u = starts(sde, path, times)
    noise = (sde.diffusion(path, times[:-1], h.abs()) * h.abs()).sqrt()
    columns = (times[1:], 1 + h * of_x, h * of_u, noise)
    weights = zip(*(column.tolist() for column in columns), strict=True)
    rows = [Row(t, ((k, state),), ((k, velocity),), std) for k, (t, state, velocity, std) in enumerate(weights)]
    return Plan(Prediction.VELOCITY, float(times[0]), rows)


def euler_maruyama(level: float = 1.0, g: NoiseLevel | None = None) -> TableSolver:
    """Euler–Maruyama: weak order 1, one evaluation per step.

    x_s = x_t + h·(u − c·N) + g·√h·z,  c = g²/(2σ),  h = s − t

    Args:
        level: Multiple of the default noise level, g² = level·2σ²·d(log α/σ)/dt; 0 is Euler's method for the ODE.
        g: Another noise level: a number, or a function `(path, t) -> g`, elementwise.

    Returns:
        A solver of the velocity, stochastic unless the noise level is 0.

    Raises:
        ValueError: If level or g is negative or not finite, or both are given.

    References:
        Kloeden & Platen 1992, 10.2 and 14.1. https://doi.org/10.1007/978-3-662-12616-5
        Song et al. 2021, section 4.1. https://arxiv.org/abs/2011.13456
    """
    sde = ReverseSDE(level, g)
    return TableSolver(
        functools.partial(euler_maruyama_plan, sde), space=Prediction.VELOCITY, order=1, stochastic=sde.stochastic
    )
