"""torchsde as it comes: the reverse SDE of a path by its Euler–Maruyama.

    dX = (u − c·N)·dt + g·dW,    c = g²/(2σ) = σ·min(α'/α, 10) − σ'

for the velocity u and the noise prediction N: the time reversal of the forward SDE, bounded where α → 0, as in this
library's `euler_maruyama` but for its bound by the step. torchsde takes equal steps, so it is given the SDE in the
grid's own clock: in s = i + (t − t_i)/h_i the step i has length 1, its drift h_i times and its noise √h_i times theirs.

Its Brownian motion is drawn for a whole batch from one seed.

References:
    Li et al. 2020, Scalable gradients for SDEs. https://arxiv.org/abs/2001.01328
    torchsde. https://github.com/google-research/torchsde
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
from attrs import frozen
from torch import Tensor

from fm_core.errors import TimeError
from fm_core.field import Field
from fm_core.gaussian import check_times
from fm_core.levels import levels
from fm_core.prediction import Prediction
from fm_core.protocols import OnStep
from fm_core.randomness import make_generator
from fm_plugins.peers.needing import needing

with needing("torchsde"):
    from torchsde import BrownianInterval, sdeint

__all__ = ["EulerMaruyama"]

FASTEST = 10.0
"""Bound of α'/α in the noise level, per unit of t."""


@final
@frozen
class EulerMaruyama:
    """torchsde's Euler–Maruyama on the reverse SDE."""

    needs = frozenset({Prediction.VELOCITY, Prediction.SCORE})
    geometries = frozenset({"euclidean"})
    stochastic = True
    order, evals_per_step = 1, 1

    def solve(
        self,
        field: Field,
        x: Tensor,
        times: Tensor,
        *,
        cond: Any = None,
        generator: torch.Generator | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Carries states x `(B, *D)` from `times[0]` to `times[-1]`, rising.

        Raises:
            TimeError: On a falling grid: noise cannot be undone.
        """
        grid = check_times(times)
        if grid[0] > grid[-1]:
            raise TimeError("noise cannot be undone: times must rise")
        drawn = torch.randint(2**31 - 1, (), generator=generator or make_generator())
        y, steps = x.flatten(1), len(grid) - 1
        motion = BrownianInterval(
            0.0, float(steps), size=tuple(y.shape), dtype=y.dtype, device=y.device, entropy=int(drawn)
        )
        clock = torch.arange(steps + 1, dtype=y.dtype, device=y.device)
        states = sdeint(_Reversed(field, cond, grid, x.shape), y, clock, bm=motion, method="euler", dt=1.0)
        if on_step:
            for t, state in zip(grid.tolist(), states, strict=True):
                on_step(t, state.reshape(x.shape))
        end: Tensor = states[-1].reshape(x.shape)
        return end


class _Reversed:
    """The reverse SDE in the grid's clock, for flat states."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self, field: Field, cond: Any, grid: Tensor, shape: torch.Size) -> None:
        alpha, sigma = levels(field.path, grid[:-1])
        path: Any = field.path
        growth = torch.where(alpha == 0, FASTEST, (path.d_alpha(grid[:-1]) / alpha).clamp(max=FASTEST))
        strength = sigma * growth - path.d_sigma(grid[:-1])
        self.field, self.cond, self.shape = field, cond, shape
        self.times, self.lengths, self.strengths = grid.tolist(), grid.diff().tolist(), strength.tolist()
        self.levels = (2 * sigma * strength).sqrt().tolist()
        self.last: tuple[int, Tensor, Tensor] | None = None

    def f(self, s: Tensor, y: Tensor) -> Tensor:
        """The drift at the beginning of step s; torchsde looks at the first one's shape before it begins."""
        i = round(float(s))
        if self.last is not None and self.last[0] == i and self.last[1] is y:
            return self.last[2]
        velocity, noise = self.field.predict(
            y.reshape(self.shape), self.times[i], self.cond, Prediction.VELOCITY, Prediction.NOISE
        )
        drift: Tensor = (self.lengths[i] * (velocity - self.strengths[i] * noise)).flatten(1)
        self.last = i, y, drift
        return drift

    def g(self, s: Tensor, y: Tensor) -> Tensor:
        """The noise level there."""
        i = round(float(s))
        return torch.full_like(y, self.levels[i] * math.sqrt(self.lengths[i]))


def euler() -> EulerMaruyama:
    """torchsde's Euler–Maruyama."""
    return EulerMaruyama()
