"""DDIM as a table on the data prediction, on any Gaussian path and any monotone grid.

With `r = α_t·σ_s/(α_s·σ_t)` the posterior variance is `β̃ = σ_s²·(1 − r²)`, and `σ_η = η·√β̃`, so that
`√(σ_s² − σ_η²) = σ_s·c` with `c = √(1 − η²·(1 − r²))`. Put `N = (x_t − α_t·D)/σ_t` into
`x_s = α_s·D + σ_s·c·N + σ_η·z`:

    x_s = c·(σ_s/σ_t)·x_t + α_s·(1 − c·r)·D + η·σ_s·√(1 − r²)·z.

η = 1 has c = r: DDPM's ancestral step with its posterior variance. η = 0 has c = 1.

For α² = ᾱ and σ² = 1 − ᾱ (the paper writes α for ᾱ) σ_η is the paper's equation 16: `1 − r² = 1 −
ᾱ_t·(1 − ᾱ_s)/(ᾱ_s·(1 − ᾱ_t)) = (1 − ᾱ_t/ᾱ_s)/(1 − ᾱ_t)`, hence `σ_η = η·√((1 − ᾱ_s)/(1 − ᾱ_t))·√(1 − ᾱ_t/ᾱ_s)`.
Beware of two other meanings of η, with other samples: a share η of the *variance* β̃, and a share of σ_s itself.

References:
    Song et al. 2021, equations 12 and 16. https://arxiv.org/abs/2010.02502
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from fm_core import Plan, Prediction, ProbabilityPath, Row, TableSolver, TimeError
from fm_core.levels import levels

__all__ = ["ddim", "ddim_plan"]


def ddim_plan(eta: float, path: ProbabilityPath, times: Tensor) -> Plan:
    """The table of DDIM on a grid, N rows in the data.

    Args:
        eta: η in [0, 1].
        path: Gaussian path.
        times: Grid, float64, shape (N+1,), strictly monotone; falling, to invert, for η = 0.

    Raises:
        TimeError: If a step begins where there is no noise, or a falling one ends where there is no signal: neither is
            known from the data prediction.
    """
    alpha, sigma = levels(path, times)
    (before, after), (alpha_t, alpha_s) = (sigma[:-1], sigma[1:]), (alpha[:-1], alpha[1:])
    if not (before.all() and alpha_s.all()):
        edge = times[:-1][before == 0] if not before.all() else times[1:][alpha_s == 0]
        raise TimeError(
            f"a DDIM step from or to t = {float(edge[0]):.6g} is not defined there: the noise of x_t = α·x1 + σ·x0 is "
            "read off the data prediction, which needs σ > 0 where a step begins and α > 0 where it ends; keep the "
            "grid of an inversion inside (0, 1)"
        )
    ratio = alpha_t * after / (alpha_s * before)
    fresh = (1 - ratio) * (1 + ratio)
    kept = torch.sqrt(1 - eta**2 * fresh) if 0 < eta < 1 else (ratio if eta else torch.ones_like(ratio))
    noise = eta * after * fresh.sqrt() if eta else torch.zeros_like(after)
    columns = (times[1:], kept * after / before, alpha_s * (1 - kept * ratio), noise)
    weights = zip(*(column.tolist() for column in columns), strict=True)
    rows = [Row(t, ((k, keep),) if keep else (), ((k, data),), std) for k, (t, keep, data, std) in enumerate(weights)]
    return Plan(Prediction.DATA, float(times[0]), rows)


def ddim(eta: float = 0.0) -> TableSolver:
    """DDIM: order 1 (weak order 1 for η > 0), one evaluation per step.

    x_s = α_s·D + √(σ_s² − σ_η²)·N + σ_η·z,  σ_η² = η²·β̃

    Args:
        eta: η in [0, 1]: the standard deviation of the fresh noise in units of the posterior's, √β̃. At 0 the solver is
            deterministic and inverts on a falling grid.

    Raises:
        ValueError: If η is not in [0, 1].

    References:
        Song et al. 2021, equations 12 and 16. https://arxiv.org/abs/2010.02502
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(
            "eta must lie in [0, 1]: 0 is deterministic, 1 is DDPM's ancestral step, and beyond it the fresh noise may "
            f"exceed all the noise there is at the new time; got {eta}"
        )
    return TableSolver(
        functools.partial(ddim_plan, eta), space=Prediction.DATA, order=1, exact_in="log_snr", stochastic=eta > 0
    )
