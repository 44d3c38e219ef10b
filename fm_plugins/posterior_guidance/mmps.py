"""Moment-matching posterior sampling: x1 given x_t is taken as Gaussian with both of its moments, by Tweedie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fm_core.gaussian import ZERO
from fm_core.guiding import Scale
from fm_core.shapes import over
from fm_plugins.posterior_guidance.conjugate_gradients import conjugate_gradients
from fm_plugins.posterior_guidance.guidance import PosteriorGuidance, positive, whole
from fm_plugins.posterior_guidance.measured import Measured

__all__ = ["mmps"]


def mmps(
    y: Any,
    operator: Callable[[Tensor], Tensor],
    noise: float = 0.0,
    *,
    iterations: int = 5,
    scale: Scale = 1.0,
) -> PosteriorGuidance:
    """Moment-matching posterior sampling, for a linear operator.

        ∇ log p(y|x_t) ≈ (∂D/∂x_t)ᵀ·Aᵀ·(A·C·Aᵀ + σ_y²·I)⁻¹·(y − A·D),    C = Cov[x1|x_t] = (σ²/α)·∂D/∂x_t

    is exact for Gaussian data of any covariance. The system is solved by conjugate gradients; `C·u` is taken as
    `(σ²/α)·(∂D/∂x_t)ᵀ·u`, the same for the exact D, whose Jacobian is symmetric, and one vector–Jacobian product: so a
    prediction costs one network call and `iterations + 1` backward passes. It is exact once the iterations reach the
    rank of A. One iteration, as is often taken, can be far off. What is not linear is taken by its derivative at D.

    Args:
        y: Measurements `(B, *M)`, or one `(*M)` for all samples.
        operator: A, from data `(B, *D)` to measurements `(B, *M)`, each sample for itself.
        noise: Standard deviation σ_y of the measurement's noise; 0 where y is in the range of A.
        iterations: Iterations of conjugate gradients.
        scale: Factor of the term: a number, `(B,)`, or a function of the log-SNR. 1 is Bayes' rule, 0 is off.

    References:
        Rozet et al. 2024, on moment matching posterior sampling. https://arxiv.org/abs/2405.13712
    """
    deviation, count = positive("noise", noise, zero=True), whole(iterations)

    def weigh(measured: Measured) -> Tensor:
        alpha, sigma = measured.schedule()
        informed = alpha.abs() >= ZERO  # where α = 0 the Jacobian is 0 too, and so is the term, whatever v
        gain = torch.where(informed, sigma.square() / torch.where(informed, alpha, 1.0), 0.0)
        gain_x = over(gain, measured.x)

        def covariance(v: Tensor) -> Tensor:
            return measured.tangent(gain_x * measured.pullback(measured.adjoint(v))) + deviation**2 * v

        return conjugate_gradients(covariance, measured.residual, count)

    return PosteriorGuidance(y, operator, weigh, scale)
