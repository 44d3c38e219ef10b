"""Adams methods on the velocity: classical multistep methods for the probability-flow ODE in the path's own time.

References:
    Hairer, Nørsett & Wanner 1993, III.1. https://doi.org/10.1007/978-3-540-78862-1
"""

from __future__ import annotations

from fm_core import Prediction, TableSolver
from fm_plugins.multistep.history import HIGHEST, Multistep

__all__ = ["adams_bashforth", "adams_pc"]


def adams_bashforth(order: int = 2, *, lower_order_final: bool = False, start: str = "rising") -> TableSolver:
    """Adams–Bashforth: the velocity is the polynomial through its last values; one evaluation per step.

    x_s = x_t + ∫_t^s Σ_j L_j(t')·u_j dt'

    Args:
        order: Order k ≥ 1; 1 is Euler's method.
        lower_order_final: Whether the order falls to 1 in the last steps.
        start: "rising" orders, by which the global order is at most 2, or "single_step" (orders ≤ 3).

    References:
        Hairer, Nørsett & Wanner 1993, III.1, equation 1.5. https://doi.org/10.1007/978-3-540-78862-1
    """
    table = Multistep(Prediction.VELOCITY, "t", order, lower_order_final=lower_order_final, start=start)
    return TableSolver(table, space=Prediction.VELOCITY, order=order)


def adams_pc(order: int = 3, *, correct_last: bool = False, start: str = "rising") -> TableSolver:
    """Adams–Bashforth–Moulton: explicit of order k − 1, corrected to order k; one evaluation per step.

    The corrector goes through the velocity at the predicted state, which is not asked again at the corrected one.

    Args:
        order: Order k, 2 to 8, of the corrector, and of the whole up to 3 with rising orders at the start.
        correct_last: Whether the last state is corrected too, for one more evaluation.
        start: "rising" orders, by which the global order is at most 3, or "single_step" (k ≤ 4).

    References:
        Hairer, Nørsett & Wanner 1993, III.1, equation 1.9. https://doi.org/10.1007/978-3-540-78862-1
    """
    if not 2 <= order <= HIGHEST:
        raise ValueError(
            f"the corrector has an order from 2 to {HIGHEST}; got {order}. adams_bashforth(1) is Euler's method; "
            "above, weights alternate in sign and grow"
        )
    table = Multistep(Prediction.VELOCITY, "t", order - 1, corrector=order, correct_last=correct_last, start=start)
    return TableSolver(table, space=Prediction.VELOCITY, order=order)
