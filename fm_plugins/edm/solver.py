"""EDM's stochastic sampler as a table on the data prediction, on any Gaussian path.

In y = x/α the noise level is `σ̃ = σ/α`, and along the probability-flow ODE `dy/dσ̃ = (y − D)/σ̃ = d`, D the data
prediction (Karras et al. 2022, equation 4 with s = α). A step of their Algorithm 2 from σ̃_t to σ̃_s, N steps in all:

    γ = min(S_churn/N, √2 − 1) if S_min ≤ σ̃_t ≤ S_max else 0,    σ̃ = σ̃_t·(1 + γ)
    ŷ = y + √(σ̃² − σ̃_t²)·S_noise·z                                 the state at t̂, where the path has σ/α = σ̃
    y' = ŷ + (σ̃_s − σ̃)·d(ŷ, σ̃)                                      Euler
    y_s = ŷ + (σ̃_s − σ̃)·½(d(ŷ, σ̃) + d(y', σ̃_s))                     Heun, unless σ̃_s = 0

In x, with `r = σ̃_s/σ̃ = α̂·σ_s/(α_s·σ̂)`, and all of it exact where D stands still:

    x̂ = (α̂/α_t)·x_t + α̂·√(σ̃² − σ̃_t²)·S_noise·z
    x' = r·(α_s/α̂)·x̂ + α_s·(1 − r)·D̂,    r·α_s/α̂ = σ_s/σ̂
    x_s = (α_s/α̂)·(1 + r)/2·x̂ + α_s·(1 − r)/2·D̂ − (1/r − 1)/2·x' + α_s·(1/r − 1)/2·D'.

Ends. A step to σ = 0 is Euler's, which is `x_s = α_s·D`, as in the paper. So is a step from α = 0 (flows at t = 0):
there σ̃ = ∞, and a trapezoid over an infinite interval does not exist. Each is one step of local order 2; the order
stays 2. Noise is not churned beyond the level at which the run begins, where the network need not be defined. N counts
the steps down to σ = 0: where the grid ends before, the closing data prediction is one of them (it is not churned).

References:
    Karras et al. 2022, Algorithm 2, table 5. https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

import functools
import math

import torch
from attrs import field, frozen, validators
from torch import Tensor

from fm_core import Plan, Prediction, ProbabilityPath, Row, TableSolver
from fm_core.levels import levels

__all__ = ["Churn", "edm", "edm_plan"]

MOST = math.sqrt(2) - 1
"""The most that a step raises the noise level by: its variance is doubled."""


FARTHEST = 100.0
"""Noise level σ/α from which a step is Euler's: the trapezoid of a step from there multiplies what the network errs by
the ratio of the levels. (EDM's own levels begin at 80; flows begin at ∞, and squared-cosine betas at 2·10⁴.)
"""


@frozen
class Churn:
    """How much fresh noise a step adds before it goes down: S_churn, S_min, S_max, S_noise of the paper."""

    churn: float = field(default=0.0, validator=[validators.ge(0.0), validators.lt(math.inf)])
    low: float = field(default=0.0, validator=validators.ge(0.0))
    high: float = field(default=math.inf, validator=validators.gt(0.0))
    scale: float = field(default=1.0, validator=[validators.ge(0.0), validators.lt(math.inf)])

    def raised(self, path: ProbabilityPath, times: Tensor) -> Tensor:
        """The times from which the steps go down, `(N,)`: the grid's own, or earlier ones where noise is churned."""
        alpha, sigma = levels(path, times)
        level, steps = (sigma / alpha)[:-1], len(times) - 1 + bool(sigma[-1] > 0)
        inside = (self.low <= level) & (level <= self.high) & level.isfinite()
        gamma = inside * torch.tensor(min(self.churn / steps, MOST), dtype=level.dtype)
        back = path.t_of_log_snr(-2 * (level * (1 + gamma)).log())  # type: ignore[attr-defined]
        return torch.where(gamma > 0, back.clamp(min=times[0]).minimum(times[:-1]), times[:-1])


def edm_plan(churn: Churn, path: ProbabilityPath, times: Tensor) -> Plan:
    """The table of EDM's sampler on a grid, up to three rows a step, in the data.

    Args:
        churn: How noise is churned.
        path: Gaussian path.
        times: Grid, float64, shape (N+1,), strictly increasing.
    """
    start = churn.raised(path, times) if churn.churn else times[:-1]
    alpha, sigma = levels(path, times)
    a, b = levels(path, start)
    (alpha_t, alpha_s), (sigma_t, sigma_s) = (alpha[:-1], alpha[1:]), (sigma[:-1], sigma[1:])
    fresh = torch.where(start < times[:-1], (b / a).square() - (sigma_t / alpha_t).square(), 0.0).clamp(min=0.0)
    fresh = torch.where(fresh > 0, churn.scale * a * fresh.sqrt(), 0.0)
    near = b <= FARTHEST * a
    columns = (
        near,
        times[1:],
        start,
        a / alpha_t,
        fresh,
        a * sigma_s / (alpha_s * b),
        sigma_s / b,
        alpha_s,
        alpha_s / a,
    )
    rows: list[Row] = []
    for t, (near_enough, s, at, shrink, noise, r, keep, to, grow) in zip(
        times.tolist(), zip(*(column.tolist() for column in columns), strict=True)
    ):
        if at < t:
            rows.append(Row(at, ((len(rows), shrink),), (), noise, accepted=False))
        corrected = bool(r) and near_enough
        x, half = len(rows), to * (1 - r) / 2
        rows.append(Row(s, ((x, keep),) if keep else (), ((x, 2 * half),), accepted=not corrected))
        if corrected:
            back = (1 / r - 1) / 2
            rows.append(Row(s, ((x, grow * (1 + r) / 2), (x + 1, -back)), ((x, half), (x + 1, to * back))))
    return Plan(Prediction.DATA, float(times[0]), rows)


def edm(s_churn: float = 0.0, s_min: float = 0.0, s_max: float = math.inf, s_noise: float = 1.0) -> TableSolver:
    """EDM's sampler: Heun's method in σ/α with churned noise; order 2, two evaluations per step, one in the last.

    σ̃ = σ̃_t·(1 + γ),  ŷ = y + √(σ̃² − σ̃_t²)·S_noise·z,  y_s = ŷ + (σ̃_s − σ̃)·½(d(ŷ, σ̃) + d(y', σ̃_s)), for
    y = x/α and d = (y − D)/σ̃

    Raising the noise and following the ODE both carry marginals of the path to marginals, so whatever the churn, all
    error in law is Heun's: order 2 for a given S_churn (1 where γ is at its most, √2 − 1, however many the steps).

    Args:
        s_churn: Total amount of churn, γ·N; 0 is the deterministic sampler, Algorithm 1.
        s_min, s_max: The interval of noise levels σ/α in which noise is churned.
        s_noise: Standard deviation of the churned noise, in units of what the noise level calls for (1.003 to 1.007 in
            the paper, against the loss of detail that networks cause).

    Raises:
        ValueError: If one is negative, or s_churn or s_noise is not finite.

    References:
        Karras et al. 2022, Algorithm 2. https://arxiv.org/abs/2206.00364
    """
    return TableSolver(
        functools.partial(edm_plan, Churn(s_churn, s_min, s_max, s_noise)),
        space=Prediction.DATA,
        order=2,
        evals_per_step=2,
        stochastic=s_churn > 0,
    )
