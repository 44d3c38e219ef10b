"""DEIS: the noise prediction interpolated by a polynomial, the linear part exact.

`x_s = (α_s/α_t)·x_t + α_s·∫ N d(σ/α)`, N a polynomial through its last values in σ/α (ρAB), in t (tAB), or, as
diffusers has it, in λ.

References:
    Zhang & Chen 2023. https://arxiv.org/abs/2204.13902
"""

from __future__ import annotations

from fm_core import Prediction, TableSolver
from fm_plugins.multistep.history import Multistep

__all__ = ["deis"]


def deis(
    order: int = 3, *, variable: str = "sigma", lower_order_final: bool = False, start: str = "rising"
) -> TableSolver:
    """DEIS-AB: noise in σ/α, t or λ; one evaluation per step.

    Args:
        order: Order k ≥ 1; 1 is DDIM.
        variable: "sigma" (ρAB-DEIS), "t" (tAB-DEIS), or "lambda" (diffusers').
        lower_order_final: Whether the order falls to 1 in the last steps.
        start: "rising" orders, by which the global order is at most 2, or "single_step" (k ≤ 3).

    References:
        Zhang & Chen 2023, section 3.2. https://arxiv.org/abs/2204.13902
    """
    table = Multistep(Prediction.NOISE, variable, order, lower_order_final=lower_order_final, start=start)
    return TableSolver(table, space=Prediction.NOISE, order=order)
