"""SEEDS: single-step stochastic exponential integrators, whose stages and step see one Brownian path.

SEEDS-2 on noise with τ = 1 and r = ½: a stage `u = (α_1/α_t)·x_t − 2σ_1·(e^{h/2} − 1)·N(x_t) − σ_1·√(e^h − 1)·z_1`, and
`x_s = (α_s/α_t)·x_t − 2σ_s·(e^h − 1)·N(u) − σ_s·(√(e^{2h} − e^h)·z_1 + √(e^h − 1)·z_2)`.

On noise, τ is less where σ/α more than halves in a step (`stages.tau_squared`); on data it is as asked on any grid.

References:
    Gonzalez et al. 2023. https://arxiv.org/abs/2305.14267
"""

from __future__ import annotations

from fm_core import Prediction, TableSolver
from fm_plugins.multistep.stages import SingleStep, Tau, stage_nodes

__all__ = ["seeds"]


def seeds(order: int = 2, *, space: str = "noise", tau: Tau = 1.0, published: bool = False) -> TableSolver:
    """SEEDS-1, 2, 3: noise (or data) in λ with stages and exact noise; weak order min(order, 2), `order` evaluations.

    Args:
        order: 1, 2 or 3: one more than there are stages.
        space: "noise", or "data", in which steps from σ/α = ∞ exist.
        tau: τ: 1 is the reverse-time SDE, 0 the ODE. Or a function of λ.
        published: At order 2 the ½-shortcut, by which the step uses the stage's prediction alone; at order 3 the first
            and the last alone.

    References:
        Gonzalez et al. 2023, Algorithms 1 to 3. https://arxiv.org/abs/2305.14267
    """
    table = SingleStep(
        space,
        "lambda",
        stage_nodes(order),
        used=(0, 2) if published and order == 3 else None,
        shortcut="midpoint" if published and order == 2 else None,
        tau=tau,
    )
    stochastic = callable(tau) or tau != 0.0
    return TableSolver(
        table,
        space=Prediction(space),
        order=min(order, 2) if stochastic else order,
        evals_per_step=order,
        stochastic=stochastic,
    )
