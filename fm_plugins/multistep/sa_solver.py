"""SA-Solver: stochastic Adams with a variance that is controlled by τ(λ), predictor and corrector.

References:
    Xue et al. 2023. https://arxiv.org/abs/2309.05019
"""

from __future__ import annotations

import math

from attrs import frozen

from fm_core import Prediction, TableSolver
from fm_plugins.multistep.history import Multistep
from fm_plugins.multistep.stages import Tau

__all__ = ["Band", "sa_solver"]


@frozen
class Band:
    """τ where σ/α lies in a band, else 0.

    Args:
        tau: τ inside.
        low, high: The band of σ/α.
    """

    tau: float
    low: float
    high: float

    def __call__(self, log_ratio: float) -> float:
        """τ at λ = log(α/σ)."""
        return self.tau if self.low <= (math.exp(-log_ratio) if log_ratio > -700 else math.inf) <= self.high else 0.0


def sa_solver(
    order: int = 2,
    *,
    corrector: int = 2,
    tau: Tau = 1.0,
    band: tuple[float, float] | None = None,
    lower_order_final: bool = False,
) -> TableSolver:
    """SA-Solver: data in λ, an explicit stochastic Adams step and its correction; one evaluation per step.

    Predicted and corrected state share their noise. τ is constant over a step, so its variance is exact.

    Args:
        order: Order of the explicit step.
        corrector: Order of the corrector, 0 for none. Weak order min(2, corrector), or min(2, order) without.
        tau: τ: 0 is the ODE, 1 the reverse-time SDE. Or a function of λ.
        band: (low, high): noise only while σ/α lies in it.
        lower_order_final: Whether the order falls to 1 in the last steps.

    References:
        Xue et al. 2023, Algorithm 1, appendix on τ. https://arxiv.org/abs/2309.05019
    """
    if band is not None:
        if callable(tau):
            raise ValueError("band= limits a constant tau; a function of λ can be 0 where it wants; leave band out")
        low, high = band
        if not 0.0 <= low < high:
            raise ValueError(f"band is (low, high) of σ/α with 0 ≤ low < high; got {tuple(band)}")
        tau = Band(tau, low, high) if tau else 0.0
    table = Multistep(
        Prediction.DATA, "lambda", order, corrector=corrector, lower_order_final=lower_order_final, tau=tau
    )
    stochastic = callable(tau) or tau != 0.0
    reached = min(table.reached, 2) if stochastic else table.reached
    return TableSolver(table, space=Prediction.DATA, order=reached, stochastic=stochastic)
