"""The SDEs that have a path's marginals: drift and noise level, as functions of the state and the velocity.

The velocity u has the marginals p_t of the path by the continuity equation. For any g(t) ≥ 0 the Fokker–Planck equation
of `dX = (u + ½g²·∇log p_t)·dt + g·dW` is the same one, since `∇·(½g²·p·∇log p) = ½g²·Δp` cancels its diffusion. With
score = −noise/σ,

    dX = (u − c·N)·dt + g·dW,    c = g²/(2σ),    N = (α'·x − α·u)/(σα' − ασ') = m·x + k·u.

By default `g² = level·2σ²·λ'`, λ = log(α/σ), so `c = level·(σα'/α − σ')`; at level 1 this is the time reversal of
the forward SDE `dX = (α'/α)·X·ds + g·dW` (β(t) on the VP path, d(σ²)/dt on the VE path), with `u − c·N = 2u −
(α'/α)·x`.

Ends. Any g keeps the marginals, so the default may be bounded without bias, and it is bounded twice.

Where α → 0, α'/α → ∞ (1/t on the linear path), and the default uses `min(α'/α, 10)`, t having unit length. Unbounded,
the first steps would replace a share of the state by noise that does not shrink with h; what they do wrong fades only
like h^(2·level), and for level < 1 that would be the order of convergence. (VP with β ≤ 20 does not meet the bound.)

In a step of length h, `c ≤ (α² + σ²)/(σ·h)`. For data of unit variance N = σ/(α² + σ²)·x, so h·c·N ≤ x: noise replaces
at most all of the state in one step, which keeps coarse grids stable. As h → 0 it is met nowhere.

Where σ → 0 the default c stays finite if σ' does (c = 1 on the linear path at t = 1). A noise level of your own is used
as it is.

References:
    Anderson 1982. https://doi.org/10.1016/0304-4149(82)90051-5
    Song et al. 2021, equation 6 and appendix D.1. https://arxiv.org/abs/2011.13456
    Albergo et al. 2023, corollary 18 (any g). https://arxiv.org/abs/2303.08797
    Karras et al. 2022, equation 6 (any g). https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from fm_core import Prediction, ProbabilityPath, TimeError
from fm_core.levels import levels

__all__ = ["FASTEST", "NoiseLevel", "ReverseSDE", "starts"]

FASTEST = 10.0
"""Bound of α'/α in the default noise level, per unit of t."""

NoiseLevel = float | Callable[[ProbabilityPath, Tensor], Tensor]
"""g: a number, or a function `(path, t) -> g`, elementwise on t."""


def _nonnegative(_: object, attribute: Any, value: Any) -> None:
    if callable(value) or value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{attribute.name} must be a finite number ≥ 0; got {value!r}; 0 is the ODE, without noise")


@frozen
class ReverseSDE:
    """The SDE `dX = (u − c·N)·dt + g·dW` with a chosen noise level.

    Args:
        level: Multiple of the default g², ≥ 0; 0 is the probability-flow ODE.
        g: Another noise level in place of the default.

    Raises:
        ValueError: If level or g is negative or not finite, or both are chosen.
    """

    level: float = field(default=1.0, validator=_nonnegative)
    g: NoiseLevel | None = field(default=None, validator=_nonnegative)

    def __attrs_post_init__(self) -> None:
        if self.g is not None and self.level != 1.0:
            raise ValueError(f"level scales the default noise level, and g replaces it; got level={self.level} and g")

    @property
    def stochastic(self) -> bool:
        """Whether there is noise."""
        return bool(self.level) if self.g is None else bool(self.g)

    def drift(self, path: ProbabilityPath, t: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of x and of u in the drift, `(−c·m, 1 − c·k)`, shape of t; not finite where c is not.

        Args:
            path: Gaussian path.
            t: Times, float64.
            h: Length of the step in which each time is used.
        """
        alpha, sigma = levels(path, t)
        m, k = path.affine(t, src=Prediction.VELOCITY, dst=Prediction.NOISE)  # type: ignore[attr-defined]
        m, k = torch.where(alpha == 0, 1 / sigma, m), torch.where(alpha == 0, 0.0, k)  # there x_t = σ·x0
        c = self._strength(path, t, h)
        return torch.where(c == 0, 0.0, -c * m), torch.where(c == 0, 1.0, 1 - c * k)

    def diffusion(self, path: ProbabilityPath, t: Tensor, h: Tensor) -> Tensor:
        """g² at t in steps of length h, shape of t."""
        if self.g is not None:
            return self._own(path, t).square()
        return 2 * levels(path, t)[1] * self._strength(path, t, h)

    def ends(self, path: ProbabilityPath, t: Tensor) -> Tensor:
        """Whether c is not known at t: where σ = 0 a noise level of your own leaves it undetermined."""
        return (levels(path, t)[1] == 0) & (self.g is not None and self.stochastic)

    def _strength(self, path: ProbabilityPath, t: Tensor, h: Tensor) -> Tensor:
        """c at t in steps of length h."""
        alpha, sigma = levels(path, t)
        if self.g is not None:
            squared = self._own(path, t).square()
            return torch.where(squared == 0, 0.0, squared / (2 * sigma))
        if not self.level:
            return torch.zeros_like(t)
        d_alpha, d_sigma = path.d_alpha(t), path.d_sigma(t)  # type: ignore[attr-defined]
        growth = torch.where(alpha == 0, FASTEST, (d_alpha / alpha).clamp(max=FASTEST))
        return torch.minimum(self.level * (sigma * growth - d_sigma), (alpha.square() + sigma.square()) / (sigma * h))

    def _own(self, path: ProbabilityPath, t: Tensor) -> Tensor:
        """g at t, checked."""
        value = self.g(path, t) if callable(self.g) else self.g
        g = torch.as_tensor(value, dtype=torch.float64).expand(t.shape)
        wrong = ~(g.isfinite() & (g >= 0))
        if wrong.any():
            raise TimeError(
                f"the noise level g is {float(g[wrong][0]):.6g} at t = {float(t[wrong][0]):.6g}; it must be finite and "
                "≥ 0 at every time a step uses. Bound it there, or use the default (level=), which is bounded by the "
                "step"
            )
        return g


def starts(sde: ReverseSDE, path: ProbabilityPath, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Step lengths h and the drift's weights of x and u at the start of every step, each `(N,)`.

    Raises:
        TimeError: If a step starts where the drift is not finite.
    """
    h = times.diff()
    of_x, of_u = sde.drift(path, times[:-1], h.abs())
    wrong = ~(of_x.isfinite() & of_u.isfinite())
    if wrong.any():
        raise TimeError(
            f"the drift u + ½g²·score is not finite at t = {float(times[:-1][wrong][0]):.6g}: a score needs σ > 0 and "
            "a velocity finite α' and σ'; begin steps inside the path, or let g be 0 where σ is"
        )
    return h, of_x, of_u
