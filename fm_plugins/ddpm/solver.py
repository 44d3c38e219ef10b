"""DDPM's ancestral sampling, as a table on the data prediction, on any Gaussian path and any rising grid.

From t to s > t let `α_{t|s} = α_t/α_s` and `σ²_{t|s} = σ_t² − α²_{t|s}·σ_s²`: the kernel that adds noise,
`x_t = α_{t|s}·x_s + σ_{t|s}·z`. Given x_t and the data, Bayes' rule turns it round,

    x_s | x_t, x1 ~ N((α_{t|s}·σ_s²/σ_t²)·x_t + (α_s·σ²_{t|s}/σ_t²)·x1, β̃),    β̃ = σ²_{t|s}·σ_s²/σ_t²,

and the sampler puts the data prediction D in place of x1. With `r = α_t·σ_s/(α_s·σ_t)`, the ratio of the two
signal-to-noise ratios, `σ²_{t|s} = σ_t²·(1 − r)·(1 + r)`, so a step is

    x_s = r·(σ_s/σ_t)·x_t + α_s·(1 − r²)·D + √var·z,    var = β̃ = σ_s²·(1 − r²)  or  σ²_{t|s} = σ_t²·(1 − r²).

For α² + σ² = 1, `σ²_{t|s}` is DDPM's β_t, and with `D = (x_t − σ_t·ε)/α_t` the mean is the textbook's
`(x_t − β_t/√(1 − ᾱ_t)·ε)/√(1 − β_t)` (Ho et al. 2020, equation 11). The two variances are the optimal ones for data
that are a point and for data that are N(0, I) (their section 3.2). A step to σ_s = 0 is without noise, as the last
one of their Algorithm 2 is; where the path ends short of the data, that step is the pipeline's closing data prediction.

References:
    Ho et al. 2020. https://arxiv.org/abs/2006.11239
    Kingma et al. 2021, appendix A (any α and σ). https://arxiv.org/abs/2107.00630
"""

from __future__ import annotations

import functools
from typing import Literal

from torch import Tensor

from fm_core import Plan, Prediction, ProbabilityPath, Row, TableSolver
from fm_core.levels import levels

__all__ = ["ddpm", "ddpm_plan"]

VARIANCES = ("posterior", "beta")


def ddpm_plan(variance: str, path: ProbabilityPath, times: Tensor) -> Plan:
    """The table of ancestral sampling on a grid, N rows in the data.

    Args:
        variance: "posterior" (β̃) or "beta" (σ²_{t|s}).
        path: Gaussian path.
        times: Grid, float64, shape (N+1,), strictly increasing.
    """
    alpha, sigma = levels(path, times)
    (before, after), (alpha_t, alpha_s) = (sigma[:-1], sigma[1:]), (alpha[:-1], alpha[1:])
    ratio = alpha_t * after / (alpha_s * before)
    fresh = (1 - ratio) * (1 + ratio)
    noise = (after if variance == "posterior" else before.where(after > 0, 0.0)) * fresh.sqrt()
    weights = zip(
        times[1:].tolist(), (ratio * after / before).tolist(), (alpha_s * fresh).tolist(), noise.tolist(), strict=True
    )
    rows = [Row(t, ((k, keep),) if keep else (), ((k, data),), std) for k, (t, keep, data, std) in enumerate(weights)]
    return Plan(Prediction.DATA, float(times[0]), rows)


def ddpm(variance: Literal["posterior", "beta"] = "posterior") -> TableSolver:
    """Ancestral sampling: weak order 1, one evaluation per step.

    x_s = r·(σ_s/σ_t)·x_t + α_s·(1 − r²)·D + √var·z,  r = α_t·σ_s/(α_s·σ_t)

    Args:
        variance: "posterior", β̃ = σ_s²·(1 − r²), or "beta", σ²_{t|s} = σ_t²·(1 − r²), which is DDPM's β_t.

    Returns:
        A stochastic solver of the data prediction.

    Raises:
        ValueError: If the variance is neither.

    References:
        Ho et al. 2020, equation 7, Algorithm 2. https://arxiv.org/abs/2006.11239
    """
    if variance not in VARIANCES:
        raise ValueError(
            f"variance is 'posterior' (the variance of x_s given x_t and the data) or 'beta' (that of the step's "
            f"forward noise); got {variance!r}"
        )
    return TableSolver(functools.partial(ddpm_plan, variance), space=Prediction.DATA, order=1, stochastic=True)
