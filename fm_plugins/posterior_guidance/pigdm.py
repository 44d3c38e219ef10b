"""Pseudoinverse guidance (ΠGDM): x1 given x_t is taken as `N(D, r_t²·I)`, which is what unit-variance data give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fm_core.guiding import Scale
from fm_core.shapes import over
from fm_plugins.posterior_guidance.conjugate_gradients import conjugate_gradients
from fm_plugins.posterior_guidance.guidance import PosteriorGuidance, positive, whole
from fm_plugins.posterior_guidance.measured import Measured

__all__ = ["pigdm"]


def pigdm(
    y: Any,
    operator: Callable[[Tensor], Tensor],
    noise: float = 0.0,
    *,
    variance: float = 1.0,
    iterations: int = 10,
    scale: Scale = 1.0,
) -> PosteriorGuidance:
    """Pseudoinverse guidance, for a linear operator.

        ∇ log p(y|x_t) ≈ (∂D/∂x_t)ᵀ·Aᵀ·(r_t²·A·Aᵀ + σ_y²·I)⁻¹·(y − A·D),    r_t² = c·σ²/(α²·c + σ²)

    is exact for data of covariance c·I (x1 and x_t are jointly Gaussian, and r_t² is the variance of x1 given x_t); the
    paper takes c = 1. Without noise it is the pseudoinverse A⁺(y − A·D)/r_t² of the paper's name. Its sampler further
    weighs the term by r_t² and α, which `scale` can do.

    The system is solved by conjugate gradients, exact after as many iterations as A·Aᵀ has distinct eigenvalues: 2 for
    masks, 1 for operators with orthogonal rows of one length (averages over blocks). They cost applications of A and
    no network call; an operator that has a method `solve(residual, variance, noise)` solves `(variance·A·Aᵀ +
    noise²·I)·v = residual` itself, with residual `(B, *M)` and variance shaped `(B, 1, …, 1)`. What is not linear is
    taken by its derivative at D.

    Args:
        y: Measurements `(B, *M)`, or one `(*M)` for all samples.
        operator: A, from data `(B, *D)` to measurements `(B, *M)`, each sample for itself.
        noise: Standard deviation σ_y of the measurement's noise; 0 where y is in the range of A.
        variance: c, the variance of an entry of the data.
        iterations: Iterations of conjugate gradients.
        scale: Factor of the term: a number, `(B,)`, or a function of the log-SNR. 1 is Bayes' rule, 0 is off.

    References:
        Song et al. 2023. https://openreview.net/forum?id=9_gsMA8MRKQ
    """
    deviation, prior, count = positive("noise", noise, zero=True), positive("variance", variance), whole(iterations)
    solve: Callable[..., Tensor] | None = getattr(operator, "solve", None)

    def weigh(measured: Measured) -> Tensor:
        alpha, sigma = measured.schedule()
        residual = measured.residual
        spread = over(prior * sigma.square() / (prior * alpha.square() + sigma.square()), residual)
        if solve is not None:
            return solve(residual, spread, deviation)
        return conjugate_gradients(
            lambda v: spread * measured.tangent(measured.adjoint(v)) + deviation**2 * v, residual, count
        )

    return PosteriorGuidance(y, operator, weigh, scale)
