"""Exact exponential integrals: what one step adds for a polynomial through past predictions.

With λ = log(α/σ), the probability-flow ODE of a Gaussian path solves to

    data       x_s = (σ_s/σ_t)·x_t + σ_s·∫_{λ_t}^{λ_s} e^λ·D dλ
    noise      x_s = (α_s/α_t)·x_t − α_s·∫_{λ_t}^{λ_s} e^{−λ}·N dλ
    velocity   x_s = x_t + ∫_t^s u dt'

The first is the second with α and σ exchanged: let (A, B, μ) be (σ, α, λ) for data and (α, σ, −λ) for noise; then
`B = A·e^μ` and `x_s = (A_s/A_t)·x_t + A_s·∫_{μ_t}^{μ_s} e^μ·P dμ`. In place of P stands the polynomial, in a variable
v ∈ {t, λ, σ/α}, that takes the values P_j at the nodes v_j, so each node's weight is the integral of its Lagrange
polynomial. Measured from the upper end of the interval, `x = max(μ_t, μ_s) − μ`, the kernel is e^{−x} and all of it is
in one form without overflow,

    w_j = B_s·∫_0^h e^{−x}·L_j dx   (μ rising),      w_j = −A_s·(B_t/A_t)·∫_0^h e^{−x}·L_j dx   (μ falling),

which stays finite where an end has no noise or no signal. Gauss–Legendre of 16 nodes on panels at most 2 wide is exact
to rounding: Lagrange polynomials are evaluated as products, so nothing cancels.

Stochastic. The SDE `dX = (u + ½g²·score) dt + g dW` with `g² = 2τ²σ²·dλ/dt` has the marginals of the path; there

    data    x_s = (σ_s/σ_t)·e^{−τ²h}·x_t + α_s·∫_0^h (1+τ²)·e^{−(1+τ²)x}·D dx + σ_s·√(1 − e^{−2τ²h})·z
    noise   x_s = (α_s/α_t)·x_t + (1+τ²)·α_s·∫ N d(σ/α) + τ·α_s·√(σ_t²/α_t² − σ_s²/α_s²)·z

with h = λ_s − λ_t: put `½g²·score = −τ²·(x − α·D)·dλ/dt = −τ²·σ·N·dλ/dt` into the equations for x/σ and x/α.

Singular ends. A node at which v is infinite is dropped while a finite one remains: the limit of the exact weights.
Where v is infinite at the end of the step and the integral with it (data in λ to σ = 0), the order is 1 there. Where
the end has A_s = 0 and v is finite, the kernel has all its mass at s, and `w_j = B_s·L_j(v_s)`.

References:
    Lu et al. 2022, DPM-Solver, Proposition 3.1. https://arxiv.org/abs/2206.00927
    Lu et al. 2022, DPM-Solver++, Proposition 4.1. https://arxiv.org/abs/2211.01095
    Zhang & Chen 2023, DEIS. https://arxiv.org/abs/2204.13902
    Xue et al. 2023, SA-Solver, Proposition 4.2 (τ). https://arxiv.org/abs/2309.05019
    Hochbruck & Ostermann 2010, Exponential integrators. https://doi.org/10.1017/S0962492910000048
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from attrs import field, frozen
from numpy.typing import NDArray

from fm_core import Prediction, ProbabilityPath, TimeError
from fm_core.levels import levels
from fm_plugins.multistep.rows import Weights

__all__ = ["SPACES", "VARIABLES", "Clock"]

SPACES = (Prediction.DATA, Prediction.NOISE, Prediction.VELOCITY)
VARIABLES = ("t", "lambda", "sigma")
"""Time, log(α/σ), and σ/α."""

Array = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_PANEL = 2.0
_COARSE = math.log(8.0)
_FAR = 64.0
"""e^{−64}·64^5 is below float64's rounding of 1."""


@frozen(eq=False)
class Clock:
    """The times at which states live, in every variable that integrals need.

    Args:
        path: Gaussian path.
        space: What is interpolated: data, noise or velocity.
        variable: What it is a polynomial in: "t", "lambda" or "sigma".
        t: Times `(M,)`; grid points first, then inner stages.
        alpha, sigma, log_ratio: α, σ and λ there; λ is ±inf where σ or α is 0.
        value: The interpolation variable there.
    """

    path: ProbabilityPath
    space: Prediction
    variable: str
    t: Array
    alpha: Array
    sigma: Array
    log_ratio: Array
    value: Array
    _inner_times: dict[tuple[int, int, float], Array] = field(factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, path: ProbabilityPath, space: Prediction, variable: str, times: Sequence[float]) -> Clock:
        """The clock of these times."""
        t = np.array(times, dtype=np.float64)
        if space is Prediction.VELOCITY and variable == "t":  # no schedule is asked: any path has a velocity
            ones = np.ones_like(t)
            return cls(path, space, variable, t, ones, ones, 0 * ones, t)
        alpha, sigma = (level.numpy() for level in levels(path, torch.from_numpy(t)))
        with np.errstate(divide="ignore"):
            log_ratio = np.log(alpha) - np.log(sigma)
            value = {"t": t, "lambda": log_ratio, "sigma": sigma / alpha}[variable]
        return cls(path, space, variable, t, alpha, sigma, log_ratio, value)

    def carry(self, i: int, j: int, tau2: float = 0.0) -> float:
        """Weight of the state at time i in the state at time j.

        Raises:
            TimeError: If a step begins where the ratio has no meaning: data where σ = 0, noise where α = 0.
        """
        if self.space is Prediction.VELOCITY:
            return 1.0
        scale, _ = self._scales()
        if scale[i] == 0.0:
            raise self._singular(i)
        damping = math.exp(-tau2 * (self.log_ratio[j] - self.log_ratio[i])) if tau2 and self._data else 1.0
        return float(scale[j] / scale[i]) * damping

    def noise(self, i: int, j: int, tau2: float) -> float:
        """Standard deviation of the fresh noise of a step from i to j."""
        if tau2 == 0.0:
            return 0.0
        if self._data:
            gap = float(self.log_ratio[j] - self.log_ratio[i])
            return float(self.sigma[j]) * math.sqrt(-math.expm1(-2 * tau2 * gap))
        before, after = self.sigma[i] / self.alpha[i], self.sigma[j] / self.alpha[j]
        return float(self.alpha[j]) * math.sqrt(tau2 * (before - after) * (before + after))

    def usable(self, nodes: Sequence[int], i: int, j: int) -> list[int]:
        """Of these nodes, the most recent first, those that an exact step from i to j can interpolate."""
        finite = [node for node in nodes if math.isfinite(self.value[node])]
        if not finite:
            return list(nodes[:1])
        return finite if math.isfinite(self.value[j]) or self._integrable(i, j) else finite[:1]

    def coarse(self, i: int, j: int) -> bool:
        """Whether σ/α falls so far in a step of noise that later predictions must not weigh in it.

        They weigh with some share of σ_i/α_i, and what they have changed by is wrong by that share of the noise that
        was, of which little should be left. A flow begins with such a step: from t = 10⁻³, where σ/α is 999.
        """
        return self.space is Prediction.NOISE and _COARSE < self.log_ratio[j] - self.log_ratio[i] < math.inf

    def overreaches(self, n: int) -> bool:
        """Whether the step from grid point n is too long for what the data predictions before it tell.

        The kernel e^λ has its mass at the end of the step, so the polynomial is taken there, beyond its last node. Data
        changes less with every e-fold of σ/α, and the polynomial in λ as before: over more than an e-fold, and more
        than twice the distance of its nodes, it leads away. So ends a uniform grid at σ/α = 0.01, where a step of 0.09
        to 0.01 follows one of 0.14 to 0.09.
        """
        if not self._data or n == 0:
            return False
        length = self.log_ratio[n + 1] - self.log_ratio[n]
        reach, apart = abs(self.value[n + 1] - self.value[n]), abs(self.value[n] - self.value[n - 1])
        return bool(1.0 < length < math.inf and reach > 2 * apart)

    def weights(self, i: int, j: int, nodes: Sequence[int], tau2: float = 0.0) -> Weights:
        """Weights of the predictions at `nodes` in the step from time i to time j.

        Args:
            i, j: Indices of the times at which the step begins and ends.
            nodes: Indices of the times of the predictions, the most recent first; what cannot be interpolated (see the
                module) is left out.
            tau2: τ² of a stochastic step.
        """
        nodes = self.usable(nodes, i, j)
        scale, other = self._scales()
        if self.space is not Prediction.VELOCITY and scale[j] == 0.0:
            return dict(zip(nodes, (float(other[j]) * self._basis(nodes, self.value[j : j + 1])[:, 0]).tolist()))
        value, mass = self._quadrature(i, j, tau2, flat=len(nodes) == 1)
        return dict(zip(nodes, (self._basis(nodes, value) @ mass).tolist()))

    def _basis(self, nodes: Sequence[int], value: Array) -> Array:
        """Lagrange polynomials of the nodes at some values of the variable, `(nodes, values)`."""
        at = self.value[list(nodes)]
        basis = np.ones((len(nodes), len(value)))
        for k in range(len(nodes)):
            for m in range(len(nodes)):
                if m != k:
                    basis[k] *= (value - at[m]) / (at[k] - at[m])
        return basis

    def prepare(self, segments: Sequence[tuple[int, int, float]]) -> None:
        """Finds the times along many steps (i, j, τ²) at once, for schedules that give them by bisection."""
        if self.space is Prediction.VELOCITY or self.variable != "t":
            return
        new = [segment for segment in segments if segment not in self._inner_times]
        inner = [self._kernel(*segment)[0] for segment in new]
        if not new:
            return
        of = self.path.t_of_log_snr  # type: ignore[attr-defined]
        times = of(torch.from_numpy(2 * np.concatenate(inner))).numpy()
        self._inner_times.update(zip(new, np.split(times, np.cumsum([len(x) for x in inner])[:-1]), strict=True))

    def _quadrature(self, i: int, j: int, tau2: float, *, flat: bool) -> tuple[Array, Array]:
        """Values of the variable along the step, and the kernel's mass at each; `flat`: values are not looked at."""
        if self.space is Prediction.VELOCITY:
            return self._in_time(i, j)
        log_ratio, mass = self._kernel(i, j, tau2)
        if flat or self.variable == "lambda":
            return log_ratio, mass
        if self.variable == "sigma":
            return np.exp(-log_ratio), mass
        self.prepare([(i, j, tau2)])
        return self._inner_times[i, j, tau2], mass

    def _kernel(self, i: int, j: int, tau2: float) -> tuple[Array, Array]:
        """λ along the step, and the kernel's mass at each.

        Raises:
            TimeError: If the step begins where the space says nothing.
        """
        sign = 1 if self._data else -1
        start, end = sign * self.log_ratio[i], sign * self.log_ratio[j]
        scale, other = self._scales()
        rate = 1 + tau2 if self._data else 1.0
        length = abs(end - start)
        x, dx = _panels(length if math.isfinite(length) else _FAR / rate, _PANEL / rate)
        if end <= start and scale[i] == 0.0:
            raise self._singular(i)
        total = other[j] if end > start else -scale[j] * (other[i] / scale[i])
        return sign * (max(start, end) - x), total * (1 + tau2) * np.exp(-rate * x) * dx

    def _in_time(self, i: int, j: int) -> tuple[Array, Array]:
        start, length = self.t[i], self.t[j] - self.t[i]
        if self.variable == "t":
            return start + length * (_NODES + 1) / 2, length * _WEIGHTS / 2
        y, dy = _panels(
            72.0, _PANEL
        )  # t' = t + (s − t)/(1 + e^{−y}): exponentially close to either end, however singular
        near, far = 1 / (1 + np.exp(36 - y)), 1 / (1 + np.exp(y - 36))
        time = np.where(y < 36, start + length * near, self.t[j] - length * far)
        inside = Clock.of(self.path, self.space, self.variable, time).value
        mass = length * near * far * dy
        finite = np.isfinite(inside)
        return np.where(finite, inside, 0.0), np.where(finite, mass, 0.0)

    def _integrable(self, i: int, j: int) -> bool:
        """Whether powers of a variable that is infinite at the end of the step have finite integrals all the same."""
        if self.variable != "lambda":
            return False
        scale, _ = self._scales()
        return self.space is Prediction.VELOCITY or bool(scale[j] > 0.0)

    def _scales(self) -> tuple[Array, Array]:
        """A and B = A·e^μ."""
        return (self.sigma, self.alpha) if self._data else (self.alpha, self.sigma)

    @property
    def _data(self) -> bool:
        return self.space is Prediction.DATA

    def _singular(self, i: int) -> TimeError:
        level, other, solvers = (
            ("σ", "noise", "dpm_solver, deis, adams_pc") if self._data else ("α", "data", "dpm_solver_pp, adams_pc")
        )
        return TimeError(
            f"a step cannot begin at t = {self.t[i]:.6g} in the {self.space} space: {level} = 0 there, so the "
            f"{self.space} prediction says nothing of the {other}. Keep the grid away from that end, or use a solver "
            f"of the {other} or of the velocity ({solvers}, …)"
        )


def _panels(length: float, widest: float) -> tuple[Array, Array]:
    """Composite Gauss–Legendre nodes and weights on [0, length]."""
    count = max(1, math.ceil(length / widest))
    width = length / count
    x = (np.arange(count)[:, None] + (_NODES + 1) / 2) * width
    return x.ravel(), np.tile(_WEIGHTS * (width / 2), count)
