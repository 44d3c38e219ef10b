"""Diffusion posterior sampling: y given x_t is taken as `N(A(D), σ_y²·I)`, as if the data were known to be D(x_t)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fm_core.building import OptionError
from fm_core.errors import TimeError
from fm_core.guiding import Scale, renoised
from fm_core.shapes import over
from fm_plugins.posterior_guidance.guidance import PosteriorGuidance, positive
from fm_plugins.posterior_guidance.measured import Measured

__all__ = ["dps"]


def dps(
    y: Any,
    operator: Callable[[Tensor], Tensor],
    noise: float | None = None,
    *,
    zeta: float | None = None,
    scale: Scale = 1.0,
) -> PosteriorGuidance:
    """Diffusion posterior sampling, for any differentiable operator, linear or not.

    With `noise` it is the paper's approximation (sections 3.1 and 3.2), a term of the score for any solver and grid:

        ∇ log p(y|x_t) ≈ −∇‖y − A(D(x_t))‖²/(2·σ_y²) = (∂D/∂x_t)ᵀ·Aᵀ·(y − A(D))/σ_y².

    With `zeta` in its place it is the step size of the paper's Algorithm 1: every *step* moves the state by

        −ζ_i·∇‖y − A(D)‖²,   ζ_i = ζ/‖y − A(D)‖,

    the norm over each sample, whatever σ_y is and however long the step, so ζ belongs to one grid. (The gradient of the
    norm itself is half as long: the authors' code takes that, and its `scale` is 2·ζ.) A deterministic step from t to s
    moves by `(α_s·σ_t²/α_t)·(1 − e^{−h})` times what the score moves, with h = log(α_s/σ_s) − log(α_t/σ_t), and the
    term is divided by that: a DDIM step moves as stated. An ancestral step moves by 1 + e^{−h} times as much, nearly 2
    where steps are short.

    Args:
        y: Measurements `(B, *M)`, or one `(*M)` for all samples.
        operator: A, from data `(B, *D)` to measurements `(B, *M)`, each sample for itself.
        noise: Standard deviation σ_y of the measurement's noise.
        zeta: ζ, in units of the state, in place of `noise`.
        scale: Factor of the term: a number, `(B,)`, or a function of the log-SNR. 0 is off.

    Raises:
        OptionError: For both or neither of `noise` and `zeta`, or one that is not positive.

    References:
        Chung et al. 2023. https://arxiv.org/abs/2209.14687
    """
    if (noise is None) == (zeta is None):
        raise OptionError(
            "dps takes noise=, the standard deviation of the measurement's noise, or zeta=, the step size of the "
            f"paper's Algorithm 1; got {'neither' if noise is None else 'both'}"
        )
    if zeta is not None:
        size = positive("zeta", zeta)
        return PosteriorGuidance(y, operator, lambda measured: _of_a_step(measured, size), scale)
    precision = positive("noise", noise) ** -2
    return PosteriorGuidance(y, operator, lambda measured: measured.residual * precision, scale)


def _of_a_step(measured: Measured, zeta: float) -> Tensor:
    if measured.until is None:
        raise TimeError(
            "dps with zeta= moves the state by a given length in every step, and this solver does not say where its "
            "step ends; use a solver with a fixed grid (ddim, euler, heun, …), or noise= in place of zeta="
        )
    alpha, sigma = measured.schedule()
    then = measured.path.alpha(measured.until.to(torch.float64))
    factor = 2 * zeta * renoised(measured.path, measured.t, measured.until) * alpha / (then * sigma.square())
    residual = measured.residual
    norm = torch.linalg.vector_norm(residual.reshape(len(residual), -1), dim=1)
    return over(factor, residual) * residual / over(norm.clamp_min(torch.finfo(norm.dtype).tiny), residual)
