"""Small right tables with places where a defect can be planted: Euler, Heun, Adams–Bashforth 2, DDIM, DPM-Solver++.

The last is an exponential integrator of the data prediction in λ = log(α/σ), with τ² times the noise of the reverse
SDE: with p = 1 + τ², κ = e^{pλ}/α and h = λ_s − λ_t,

    x_s = (κ_t/κ_s)·x_t + (1/κ_s)·∫ D(λ)·p·e^{pλ} dλ + σ_s·√(1 − e^{−2τ²h})·z,

where D(λ) = D_n + (λ − λ_n)·D' + (λ − λ_n)²·D'' interpolates the last `order` predictions (SA-Solver, Proposition 4.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from fm_core.plan import Plan, Row
from fm_core.prediction import Prediction
from fm_core.protocols import OnStep
from fm_core.table_solver import TableSolver
from fm_core.testing.mutants.planting import Changed

__all__ = ["DPMPP", "Loop", "ab2", "ddim", "euler", "heun", "maruyama", "solver", "wide"]


def solver(
    plan: Callable[[Any, Tensor], Plan], space: str = "velocity", order: int = 1, **declared: Any
) -> TableSolver:
    """A table solver."""
    return TableSolver(plan, space=space, order=order, **declared)


def euler(path: Any, times: Tensor) -> Plan:
    """x_s = x_t + h·u."""
    t = times.tolist()
    return Plan(Prediction.VELOCITY, t[0], [Row(s, ((k, 1.0),), ((k, s - t[k]),)) for k, s in enumerate(t[1:])])


def heun(path: Any, times: Tensor, *, stages_accepted: bool = False) -> Plan:
    """Euler to s, then the mean of both slopes."""
    rows, t = list[Row](), times.tolist()
    for k, s in enumerate(t[1:]):
        h, i = s - t[k], 2 * k
        rows.append(Row(s, ((i, 1.0),), ((i, h),), accepted=stages_accepted))
        rows.append(Row(s, ((i, 1.0),), ((i, h / 2), (i + 1, h / 2))))
    return Plan(Prediction.VELOCITY, t[0], rows)


def ab2(path: Any, times: Tensor, *, equal_steps: bool = False) -> Plan:
    """x_s = x_t + h·((1 + r/2)·u_n − r/2·u_{n−1}), r the ratio of this step to the last; Euler first."""
    t = times.tolist()
    rows = [Row(t[1], ((0, 1.0),), ((0, t[1] - t[0]),))]
    for k in range(1, len(t) - 1):
        h = t[k + 1] - t[k]
        r = 1.0 if equal_steps else h / (t[k] - t[k - 1])
        rows.append(Row(t[k + 1], ((k, 1.0),), ((k, h * (1 + r / 2)), (k - 1, -h * r / 2))))
    return Plan(Prediction.VELOCITY, t[0], rows)


def ddim(
    eta: float = 0.0,
    *,
    noise: Callable[[float, Tensor, Tensor], Tensor] | None = None,
    before: Callable[[Tensor], Tensor] | None = None,
) -> TableSolver:
    """DDIM (Song et al. 2021, equations 12 and 16).

    Args:
        eta: η.
        noise: σ_η from η, √β̃ and σ_s; η·√β̃ by default.
        before: The times that the steps are taken to end at, from the grid; its own by default.
    """

    def plan(path: Any, times: Tensor) -> Plan:
        after = times[1:] if before is None else before(times)
        alpha_t, sigma_t = path.alpha(times[:-1]), path.sigma(times[:-1])
        alpha_s, sigma_s = path.alpha(after), path.sigma(after)
        ratio = alpha_t * sigma_s / (alpha_s * sigma_t)
        root = sigma_s * (1 - ratio.square()).clamp(min=0).sqrt()
        fresh = eta * root if noise is None else noise(eta, root, sigma_s)
        kept = (sigma_s.square() - fresh.square()).clamp(min=0).sqrt()
        columns = (times[1:], kept / sigma_t, alpha_s - kept * alpha_t / sigma_t, fresh)
        weights = zip(*(column.tolist() for column in columns), strict=True)
        rows = [Row(t, ((k, keep),), ((k, data),), std) for k, (t, keep, data, std) in enumerate(weights)]
        return Plan(Prediction.DATA, float(times[0]), rows)

    return solver(plan, "data", stochastic=eta > 0)


@frozen
class DPMPP:
    """DPM-Solver++ kM and its SDE, called as a coefficient function.

    Args:
        order: Predictions that are interpolated, 1 to 3.
        tau2: τ².
        variable: The interpolation's, λ from α and σ or another function of path and times.
        slope, curve: Factors of the weights of D' and D'': 1 is right.
    """

    order: int = 2
    tau2: float = 0.0
    variable: Callable[[Any, Tensor], Tensor] | None = None
    slope: Callable[[Any, float, float], float] | float = 1.0
    curve: float = 1.0

    def __call__(self, path: Any, times: Tensor) -> Plan:
        log_ratio = (path.alpha(times) / path.sigma(times)).log()
        v, lam = (log_ratio if self.variable is None else self.variable(path, times)).tolist(), log_ratio.tolist()
        alpha, sigma, t, p = path.alpha(times).tolist(), path.sigma(times).tolist(), times.tolist(), 1 + self.tau2
        rows, moments = list[Row](), self._moments(path, times)
        for n in range(len(t) - 1):
            scale = math.exp(p * (lam[n] - lam[n + 1])) * alpha[n + 1]
            slope = self.slope if isinstance(self.slope, float) else self.slope(path, t[n], t[n + 1])
            integrals = (moments[0][n], slope * moments[1][n], moments[2][n])
            weights = _interpolated(v, n, min(self.order, n + 1), integrals, self.curve)
            noise = sigma[n + 1] * math.sqrt(-math.expm1(-2 * self.tau2 * (lam[n + 1] - lam[n])))
            terms = tuple((j, scale * w) for j, w in weights.items())
            rows.append(Row(t[n + 1], ((n, scale / alpha[n]),), terms, noise))
        return Plan(Prediction.DATA, t[0], rows)

    def _moments(self, path: Any, times: Tensor) -> list[list[float]]:
        """∫ (v − v_n)^k·p·e^{p(λ − λ_n)} dλ over every step, for k = 0, 1, 2, by Gauss–Legendre in t."""
        nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(40))
        first, half, p = times[:-1, None], times.diff()[:, None] / 2, 1 + self.tau2
        tau = first + half * (nodes + 1)
        ratio = (path.alpha(tau) / path.sigma(tau)) / (path.alpha(first) / path.sigma(first))
        rate = path.d_alpha(tau) / path.alpha(tau) - path.d_sigma(tau) / path.sigma(tau)
        density = weights * half * p * ratio**p * rate
        away = ratio.log() if self.variable is None else self.variable(path, tau) - self.variable(path, first)
        return [(density * away**k).sum(1).tolist() for k in range(3)]


def _interpolated(
    v: list[float], n: int, order: int, moments: tuple[float, float, float], curve: float
) -> dict[int, float]:
    """The weights of the last predictions, from Newton's divided differences."""
    if order == 1:
        return {n: moments[0]}
    first = v[n] - v[n - 1]
    if order == 2:
        return {n: moments[0] + moments[1] / first, n - 1: -moments[1] / first}
    second, span = v[n - 1] - v[n - 2], v[n] - v[n - 2]
    bend = curve * moments[2] + moments[1] * first
    return {
        n: moments[0] + moments[1] / first + bend / (first * span),
        n - 1: -moments[1] / first - bend / (first * second),
        n - 2: bend / (second * span),
    }


def wide(path: Any, t: float, s: float) -> float:
    """√(α_s² + σ_t²)/σ_s, a factor that is not 1 for any step."""
    a, b = (torch.tensor(v, dtype=torch.float64) for v in (s, t))
    return float((path.alpha(a).square() + path.sigma(b).square()).sqrt() / path.sigma(a))


def maruyama(*, drift: float = 1.0, noise: float = 1.0) -> TableSolver:
    """Euler–Maruyama of dX = (u + ½g²·score) dt + g dW with g² = 2σ²·dλ/dt, on the noise prediction: score = −N/σ.

    Args:
        drift: Factor of the score's term: 1 is right.
        noise: Factor of the noise: 1 is right.
    """

    def plan(path: Any, times: Tensor) -> Plan:
        t, h = times[:-1], times.diff()
        alpha, sigma, d_alpha, d_sigma = path.alpha(t), path.sigma(t), path.d_alpha(t), path.d_sigma(t)
        rate = d_alpha / alpha - d_sigma / sigma
        keep, push = 1 + h * d_alpha / alpha, -h * sigma * rate * (1 + drift)
        std = noise * (2 * h * rate).sqrt() * sigma
        weights = zip(times[1:].tolist(), keep.tolist(), push.tolist(), std.tolist(), strict=True)
        rows = [Row(s, ((k, a),), ((k, b),), z) for k, (s, a, b, z) in enumerate(weights)]
        return Plan(Prediction.NOISE, float(times[0]), rows)

    return solver(plan, "noise", stochastic=True)


@frozen
class Loop:
    """A solver that is no table: a loop over `step(field, x, t, s, generator) -> x`.

    Steps ask `field.predict(x, t, None, …)`: the run's condition stands in for the None.
    """

    step: Callable[..., Tensor]
    needs: frozenset[Prediction] = frozenset({Prediction.VELOCITY})
    order: int = 1
    evals_per_step: int = 1
    stochastic: bool = False
    falls: bool = True

    def solve(
        self,
        field: Any,
        x: Tensor,
        times: Tensor,
        *,
        cond: Any = None,
        generator: torch.Generator | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Carries x along the grid."""
        if not self.falls and times[0] > times[-1]:
            raise ValueError("a stochastic solver cannot invert")
        told = Changed(field, predict=lambda x, t, _, *kinds: field.predict(x, t, cond, *kinds))
        if on_step:
            on_step(float(times[0]), x)
        for t, s in zip(times.tolist(), times.tolist()[1:]):
            x = self.step(told, x, t, s, generator)
            if on_step:
                on_step(s, x)
        return x
