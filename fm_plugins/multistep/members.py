"""Any member of the family, by what it interpolates, in what, and to which order."""

from __future__ import annotations

from collections.abc import Sequence

from fm_core import TableSolver
from fm_plugins.multistep.history import Multistep
from fm_plugins.multistep.shortcut import Shortcut
from fm_plugins.multistep.stages import SingleStep, Tau

__all__ = ["multistep", "single_step"]


def multistep(
    space: str = "data",
    variable: str = "lambda",
    order: int = 2,
    *,
    corrector: int = 0,
    lower_order_final: bool = False,
    correct_last: bool = False,
    start: str = "rising",
    shortcut: Shortcut | None = None,
    tau: Tau = 0.0,
) -> TableSolver:
    """Any exact exponential integrator with a history; one evaluation per step.

    Args:
        space: What is interpolated: "data", "noise" or "velocity".
        variable: What it is a polynomial in: "t", "lambda" (log α/σ) or "sigma" (σ/α).
        order: Order of the explicit step.
        corrector: Order of the corrector, 0 for none.
        lower_order_final: Whether orders fall to 1 in the last steps.
        correct_last: Whether the last state is corrected too, for one more evaluation.
        start: "rising" orders, or "single_step".
        shortcut: A published simplification at order 2.
        tau: τ of the noise, 0 for none, or a function of λ; of data and noise only.

    >>> multistep("velocity", "t", 2, corrector=3).order
    3
    """
    table = Multistep(
        space,
        variable,
        order,
        corrector=corrector,
        lower_order_final=lower_order_final,
        correct_last=correct_last,
        start=start,
        shortcut=shortcut,
        tau=tau,
    )
    return _solver(table, table.reached, 1)


def single_step(
    space: str = "data",
    variable: str = "lambda",
    nodes: Sequence[float] = (0.5,),
    *,
    used: Sequence[int] | None = None,
    shortcut: Shortcut | None = None,
    tau: Tau = 0.0,
) -> TableSolver:
    """Any exact exponential integrator with stages; `len(nodes) + 1` evaluations per step.

    Args:
        space: What is interpolated: "data", "noise" or "velocity".
        variable: What it is a polynomial in: "t", "lambda" (log α/σ) or "sigma" (σ/α).
        nodes: Where the stages stand in the step, in (0, 1), rising.
        used: Which predictions the step itself interpolates, 0 being the first; all by default.
        shortcut: A published simplification of a step of two predictions.
        tau: τ of the noise, 0 for none, or a function of λ; of data and noise only.

    Returns:
        A solver that declares order 1, 2, or 3 for nodes 1/3 and 2/3; other nodes have 2 at least.
    """
    table = SingleStep(space, variable, nodes, used=None if used is None else tuple(used), shortcut=shortcut, tau=tau)
    third = len(nodes) == 2 and abs(nodes[0] - 1 / 3) < 1e-12 and abs(nodes[1] - 2 / 3) < 1e-12
    return _solver(table, 3 if third else min(2, len(nodes) + 1), len(nodes) + 1)


_EXACT_IN = {"t": "t", "lambda": "log_snr", "sigma": "noise_to_signal"}
"""What the variables are called by `TableSolver`."""


def _solver(table: Multistep | SingleStep, order: int, cost: int) -> TableSolver:
    stochastic = callable(table.tau) or table.tau != 0.0
    return TableSolver(
        table,
        space=table.space,
        order=min(order, 2) if stochastic else order,
        evals_per_step=cost,
        stochastic=stochastic,
        exact_in=None if table.shortcut else _EXACT_IN[table.variable],
    )
