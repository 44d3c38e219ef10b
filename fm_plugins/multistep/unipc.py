"""UniPC: a multistep exponential integrator and its corrector, one order higher at no further call.

UniP-k interpolates the last k predictions in λ; UniC-k also the one at the predicted state. At orders other than 2
the published weights solve the same conditions as exact interpolation and so are equal to it, whatever B(h); at order 2
B(h) = h (bh1) or e^h − 1 (bh2) enter by a ½-shortcut.

References:
    Zhao et al. 2023, UniPC. https://arxiv.org/abs/2302.04867
"""

from __future__ import annotations

from fm_core import Prediction, TableSolver
from fm_plugins.multistep.history import Multistep
from fm_plugins.multistep.shortcut import Shortcut

__all__ = ["unipc"]


def unipc(
    order: int = 2,
    *,
    space: str = "data",
    corrector: bool = True,
    shortcut: Shortcut | None = None,
    lower_order_final: bool = True,
    correct_last: bool = False,
    start: str = "rising",
) -> TableSolver:
    """UniPC: predictor of order k, corrector of order k + 1; one evaluation per step.

    Args:
        order: Order k of the predictor; with the corrector the whole is of order k + 1, up to 3 with rising orders at
            the start.
        space: "data" or "noise".
        corrector: Whether to correct; without it this is UniP.
        shortcut: "bh1" or "bh2", the published forms; None is exact.
        lower_order_final: Whether the order falls to 1 in the last steps, as published.
        correct_last: Whether the last state is corrected too, for one more evaluation.
        start: "rising" orders, or "single_step" (k ≤ 3).

    References:
        Zhao et al. 2023, Algorithms 1 and 2, Theorem 3.1. https://arxiv.org/abs/2302.04867
    """
    table = Multistep(
        space,
        "lambda",
        order,
        corrector=order + 1 if corrector else 0,
        lower_order_final=lower_order_final,
        correct_last=correct_last,
        start=start,
        shortcut=shortcut,
    )
    return TableSolver(table, space=Prediction(space), order=table.reached)
