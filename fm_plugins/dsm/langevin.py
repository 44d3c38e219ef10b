"""Annealed Langevin dynamics as a table on the noise prediction, on any Gaussian path.

At a fixed time t, `x ← x + (a/2)·∇log p_t(x) + √a·z` leaves p_t as it is, up to O(a). NCSN takes `a_i = ε·σ_i²/σ_L²`,
so that `(a_i/2)·score` and `√a_i·z` keep one ratio at all levels: with `δ = ε/σ_L²` and score = −N/σ,

    x ← x − (δ/2)·σ·N + √δ·σ·z,    T times at every level.

The same in y = x/α with σ/α for σ, where NCSN's network lives (α = 1), and finite where α = 0 too.

Between levels NCSN leaves the state where it is; that is y here, so `x ← (α_s/α_t)·x`. The noise is then a little too
strong for the new level, and Langevin dynamics takes it away, if the levels are near enough and T is large enough. From
α = 0 the state, which is noise alone, is brought to the new level's, `x ← (σ_s/σ_t)·x`. To σ = 0 it is denoised,
`x ← α_s·D` (Jolicoeur-Martineau et al. 2021; where the path ends at σ > 0 the pipeline's closing data prediction does
it).

Accuracy. Where σ/α is large, a step takes the share δ/2 of the excess away and settles at 1/(1 − δ/4) times the right
variance; where σ/α is small against the data's spread √v, it does nearly nothing: what is then too much stays. On
Gaussian data that is a share `Δ/(T·δ)` of the variance, Δ the fall of log(σ/α)² from one level to the next where σ²/α²
≈ v·Δ/(T·δ): of order 1 in the number of levels, whatever δ is. Errors of δ/4 at the high levels are forgotten further
down.

References:
    Song & Ermon 2019, Algorithm 1. https://arxiv.org/abs/1907.05600
    Song & Ermon 2020 (how to choose the levels, T and ε). https://arxiv.org/abs/2006.09011
    Jolicoeur-Martineau et al. 2021, section 3.1. https://arxiv.org/abs/2009.05475
"""

from __future__ import annotations

import functools
import math

from attrs import field, frozen, validators
from torch import Tensor

from fm_core import Plan, Prediction, ProbabilityPath, Row, TableSolver, TimeError
from fm_core.levels import levels

__all__ = ["Annealing", "annealed_langevin", "annealed_langevin_plan"]


@frozen
class Annealing:
    """T steps of Langevin dynamics at every level, of the size δ."""

    steps_per_level: int = field(validator=[validators.instance_of(int), validators.ge(1)])
    step_size: float = field(validator=[validators.gt(0.0), validators.lt(2.0)])


def annealed_langevin_plan(annealing: Annealing, path: ProbabilityPath, times: Tensor) -> Plan:
    """The table of annealed Langevin dynamics, in the noise: T rows at every time with σ > 0, one between two times.

    Args:
        annealing: Number and size of the steps.
        path: Gaussian path.
        times: Grid, float64, shape (N+1,), strictly increasing.

    Raises:
        TimeError: If a step leads from α = 0 to σ = 0: there is no level between.
    """
    alpha, sigma = (level.tolist() for level in levels(path, times))
    grid, last = times.tolist(), len(times) - 1
    rows: list[Row] = []
    for i, t in enumerate(grid):
        if i:
            states, predictions = _move(len(rows), t, (alpha[i - 1], sigma[i - 1]), (alpha[i], sigma[i]))
            rows.append(Row(t, states, predictions, accepted=sigma[i] == 0))
        pull, std = annealing.step_size / 2 * sigma[i], math.sqrt(annealing.step_size) * sigma[i]
        for step in range(1, annealing.steps_per_level + 1 if sigma[i] else 1):
            settled = i > 0 and step == annealing.steps_per_level
            rows.append(Row(t, ((len(rows), 1.0),), ((len(rows), -pull),), std, accepted=settled))
    assert grid[last] == rows[-1].t
    return Plan(Prediction.NOISE, grid[0], rows)


Terms = tuple[tuple[int, float], ...]


def _move(at: int, t: float, before: tuple[float, float], after: tuple[float, float]) -> tuple[Terms, Terms]:
    """States and predictions of the row that takes state `at` to the next level."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = before, after
    if alpha_t == 0 and sigma_s == 0:
        raise TimeError(
            "annealed Langevin dynamics needs a level between noise alone and the data alone; got one step to "
            f"t = {t:.6g}; give more steps"
        )
    if alpha_t == 0:
        return ((at, sigma_s / sigma_t),), ()
    if sigma_s == 0:
        return ((at, alpha_s / alpha_t),), ((at, -alpha_s * sigma_t / alpha_t),)
    return ((at, alpha_s / alpha_t),), ()


def annealed_langevin(steps_per_level: int = 10, step_size: float = 0.5) -> TableSolver:
    """Annealed Langevin dynamics: T evaluations at every time of the grid, its first and last included.

    x ← x − (δ/2)·σ·N + √δ·σ·z, T times; then x ← (α_s/α_t)·x

    Args:
        steps_per_level: T (NCSN: 100 with 10 levels; NCSNv2: 5 with 232).
        step_size: δ = ε/σ_L², the step in units of the variance σ² of its level, in (0, 2) (NCSN: 0.2).

    Raises:
        ValueError: If T < 1, or δ is outside (0, 2).

    References:
        Song & Ermon 2019, Algorithm 1. https://arxiv.org/abs/1907.05600
    """
    return TableSolver(
        functools.partial(annealed_langevin_plan, Annealing(steps_per_level, step_size)),
        space=Prediction.NOISE,
        order=1,
        evals_per_step=steps_per_level,
        stochastic=True,
        starts_blind=True,
    )
