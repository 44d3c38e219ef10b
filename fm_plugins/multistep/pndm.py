"""PNDM and iPNDM: DDIM's transfer with a noise that classical multistep weights average.

`x_s = (α_s/α_t)·x_t + α_s·(σ_s/α_s − σ_t/α_t)·N̄`, with `N̄ = Σ_j c_j·N_j` and Adams–Bashforth's c of equal steps
whatever the grid: (3, −1)/2, (23, −16, 5)/12, (55, −59, 37, −9)/24. The linear part is exact; the weights take σ/α for
linear in the step's number, so the order is 2 on smooth grids however many N_j there are. iPNDM starts with rising
orders; PNDM with three pseudo-Runge–Kutta steps of four evaluations, `N̄ = (N_1 + 2·N_2 + 2·N_3 + N_4)/6` with every
stage reached by the transfer from x_t, at the middle of the step in t and at its end. A step in which σ/α falls more
than eightfold, as the first one of a flow, is left to the history: there the average means nothing.

References:
    Liu et al. 2022, PNDM, equations 9, 12, 13. https://arxiv.org/abs/2202.09778
    Zhang & Chen 2023, DEIS, appendix (iPNDM). https://arxiv.org/abs/2204.13902
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from fm_core import Plan, Prediction, ProbabilityPath, Row, TableSolver
from fm_plugins.multistep.integrals import Clock
from fm_plugins.multistep.rows import Weights, table_row

__all__ = ["ipndm", "pndm", "pndm_plan"]

_LINEAR = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))

_STAGES = ((0, 1), (1, 1), (2, 2))
"""From which prediction the next stage is reached, and whether it stands at the middle (1) or the end (2)."""


def pndm_plan(order: int, runge_kutta: bool, path: ProbabilityPath, times: Tensor) -> Plan:
    """The table of (i)PNDM on a grid.

    Args:
        order: Most predictions that are averaged, 1 to 4.
        runge_kutta: Whether the first `order − 1` steps are pseudo-Runge–Kutta.
        path: Gaussian path.
        times: Grid, float64 `(N+1,)`, strictly monotone.
    """
    steps = len(times) - 1
    middle = (times[:-1] + times[1:]) / 2
    clock = Clock.of(path, Prediction.NOISE, "t", torch.cat([times, middle]).tolist())
    rows: list[Row] = []
    asked: list[int] = []
    state = 0
    for n in range(steps):
        asked.append(state)
        if runge_kutta and n < order - 1 and not clock.coarse(n, n + 1):
            stages = [state]
            for source, place in _STAGES:
                at = n + 1 if place == 2 else steps + 1 + n
                rows.append(_transfer(clock, n, at, state, {stages[source]: 1.0}, accepted=False))
                stages.append(len(rows))
            average = dict(zip(stages, (1 / 6, 1 / 3, 1 / 3, 1 / 6), strict=True))
        else:
            weights = _LINEAR[min(order, n + 1) - 1]
            average = dict(zip(asked[::-1], weights, strict=False))
        rows.append(_transfer(clock, n, n + 1, state, average, accepted=True))
        state = len(rows)
    return Plan(Prediction.NOISE, float(times[0]), rows)


def _transfer(clock: Clock, i: int, j: int, state: int, average: Weights, *, accepted: bool) -> Row:
    """DDIM's transfer from time i to time j."""
    (whole,) = clock.weights(i, j, [i]).values()
    named = {k: whole * weight for k, weight in average.items()}
    return table_row(float(clock.t[j]), {state: clock.carry(i, j)}, named, accepted=accepted)


def _solver(order: int, *, runge_kutta: bool) -> TableSolver:
    if order not in (1, 2, 3, 4):
        raise ValueError(f"PNDM averages 1 to 4 predictions; got order={order}")
    table = functools.partial(pndm_plan, order, runge_kutta)
    return TableSolver(table, space=Prediction.NOISE, order=min(order, 2))


def ipndm(order: int = 4) -> TableSolver:
    """iPNDM: Adams–Bashforth's weights of equal steps on the noise, rising orders; one evaluation per step.

    Args:
        order: Most predictions that are averaged, 1 to 4.

    References:
        Zhang & Chen 2023, appendix. https://arxiv.org/abs/2204.13902
    """
    return _solver(order, runge_kutta=False)


def pndm() -> TableSolver:
    """PNDM (F-PNDM): three pseudo-Runge–Kutta steps of four evaluations, then one evaluation per step.

    Where σ/α falls more than eightfold in one of the three, that step is iPNDM's, at one evaluation.

    References:
        Liu et al. 2022, Algorithm 2. https://arxiv.org/abs/2202.09778
    """
    return _solver(4, runge_kutta=True)
