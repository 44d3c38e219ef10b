"""DPM-Solver and DPM-Solver++: exact exponential integrators of the noise and of the data in λ = log(α/σ).

Orders 1 are both DDIM: `x_s = (σ_s/σ_t)·x_t + α_s·(1 − e^{−h})·D`, and with `D = (x_t − σ_t·N)/α_t` that is
`(α_s/α_t)·x_t − σ_s·(e^h − 1)·N`.

Third order, multistep. The second difference enters with its own weight in `D(λ) = D_n + s·D' + s²·D''/2`; in widely
copied code it enters with half of it, which makes "order 3" locally order 2. Interpolating is right by construction:
the step is exact on data predictions quadratic in λ.

References:
    Lu et al. 2022, DPM-Solver. https://arxiv.org/abs/2206.00927
    Lu et al. 2022, DPM-Solver++. https://arxiv.org/abs/2211.01095
"""

from __future__ import annotations

from fm_core import Prediction, TableSolver
from fm_plugins.multistep.history import Multistep
from fm_plugins.multistep.shortcut import Shortcut
from fm_plugins.multistep.stages import SingleStep, Tau, stage_nodes

__all__ = ["dpm_solver", "dpm_solver_multistep", "dpm_solver_pp", "dpm_solver_pp_2s", "sde_dpm_solver_pp"]


def dpm_solver(order: int = 2, *, published: bool = False, variable: str = "lambda") -> TableSolver:
    """DPM-Solver: noise in λ, single-step; `order` evaluations per step.

    x_s = (α_s/α_t)·x_t − α_s·∫ e^{−λ}·N dλ, N the polynomial through stages at c·h: c = ½, or c = 1/3, 2/3.

    Args:
        order: 1, 2 or 3.
        published: The paper's simplifications: at order 2 the ½-shortcut; at order 3 the step interpolates the
            first and the last prediction alone.
        variable: "lambda"; or "t" or "sigma" (σ/α), in which stages exist up to the ends where λ is infinite.

    References:
        Lu et al. 2022, Algorithms 1 and 2. https://arxiv.org/abs/2206.00927
    """
    table = SingleStep(
        Prediction.NOISE,
        variable,
        stage_nodes(order),
        used=(0, 2) if published and order == 3 else None,
        shortcut="midpoint" if published and order == 2 else None,
    )
    return TableSolver(table, space=Prediction.NOISE, order=order, evals_per_step=order)


def dpm_solver_multistep(
    order: int = 2, *, lower_order_final: bool = False, start: str = "rising", shortcut: Shortcut | None = None
) -> TableSolver:
    """DPM-Solver with a history: noise in λ, one evaluation per step.

    Args:
        order: Order k ≥ 1.
        lower_order_final: Whether the order falls to 1 in the last steps.
        start: "rising" orders, by which the global order is at most 2, or "single_step" (k ≤ 3).
        shortcut: "midpoint", the published form of order 2; None is exact.

    References:
        Lu et al. 2022, DPM-Solver++, appendix on multistep DPM-Solver. https://arxiv.org/abs/2211.01095
    """
    table = Multistep(
        Prediction.NOISE, "lambda", order, lower_order_final=lower_order_final, start=start, shortcut=shortcut
    )
    return TableSolver(table, space=Prediction.NOISE, order=order)


def dpm_solver_pp(
    order: int = 2, *, lower_order_final: bool = False, start: str = "rising", shortcut: Shortcut | None = None
) -> TableSolver:
    """DPM-Solver++ with a history (2M, 3M): data in λ, one evaluation per step.

    x_s = (σ_s/σ_t)·x_t + σ_s·∫ e^λ·D dλ, D the polynomial in λ through its last `order` values. A step to σ = 0, where
    λ is infinite, is of order 1: the last data prediction itself.

    Args:
        order: Order k ≥ 1; 1 is DDIM.
        lower_order_final: Whether the order falls to 1 in the last steps.
        start: "rising" orders, by which the global order is at most 2, or "single_step" (k ≤ 3).
        shortcut: "midpoint", the published form of order 2; None is exact (in diffusers "heun").

    References:
        Lu et al. 2022, Algorithm 2. https://arxiv.org/abs/2211.01095
    """
    table = Multistep(
        Prediction.DATA, "lambda", order, lower_order_final=lower_order_final, start=start, shortcut=shortcut
    )
    return TableSolver(table, space=Prediction.DATA, order=order)


def dpm_solver_pp_2s(*, node: float = 0.5, published: bool = False, variable: str = "lambda") -> TableSolver:
    """DPM-Solver++ 2S: data in λ with one stage; order 2, two evaluations per step.

    Args:
        node: Where the stage stands in the step, in (0, 1).
        published: The paper's ½-shortcut in place of the exact weights.
        variable: "lambda"; or "t" or "sigma" (σ/α), in which stages exist up to the ends where λ is infinite.

    References:
        Lu et al. 2022, Algorithm 1. https://arxiv.org/abs/2211.01095
    """
    table = SingleStep(Prediction.DATA, variable, (node,), shortcut="midpoint" if published else None)
    return TableSolver(table, space=Prediction.DATA, order=2, evals_per_step=2)


def sde_dpm_solver_pp(
    order: int = 2, *, tau: Tau = 1.0, lower_order_final: bool = False, shortcut: Shortcut | None = None
) -> TableSolver:
    """SDE-DPM-Solver++ (1, 2M, 3M): data in λ with exact noise; weak order min(order, 2), one evaluation per step.

    x_s = (σ_s/σ_t)·e^{−τ²h}·x_t + α_s·∫_0^h (1+τ²)·e^{−(1+τ²)x}·D dx + σ_s·√(1 − e^{−2τ²h})·z

    Args:
        order: Order of interpolation, k ≥ 1.
        tau: τ: 1 is the reverse-time SDE of the paper, 0 the ODE; τ² is k-diffusion's eta. Or a function of λ.
        lower_order_final: Whether the order falls to 1 in the last steps.
        shortcut: "midpoint", the published form of order 2; None is exact.

    References:
        Lu et al. 2022, section 4.4 (SDE-DPM-Solver++). https://arxiv.org/abs/2211.01095
        Xue et al. 2023, Proposition 4.2 (any τ). https://arxiv.org/abs/2309.05019
    """
    table = Multistep(Prediction.DATA, "lambda", order, lower_order_final=lower_order_final, shortcut=shortcut, tau=tau)
    stochastic = callable(tau) or tau != 0.0
    return TableSolver(
        table, space=Prediction.DATA, order=min(order, 2) if stochastic else order, stochastic=stochastic
    )
