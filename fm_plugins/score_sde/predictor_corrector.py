"""Predictor–corrector sampling: a step of any one-step solver, then Langevin dynamics at the new time.

Predictor. By default reverse diffusion: the forward kernel from s to t, `x_t = α_{t|s}·x_s + σ_{t|s}·z` with `α_{t|s} =
α_t/α_s` and `σ²_{t|s} = σ_t² − α²_{t|s}·σ_s²`, has the drift (α_{t|s} − 1)·x, and turned round it is

    x_s = (2 − α_{t|s})·x_t + σ²_{t|s}·∇log p_t(x_t) + σ_{t|s}·z,

Song et al.'s Algorithm 2 for VE (α = 1, σ²_{t|s} = σ_t² − σ_s²) and Algorithm 3 for VP (α_{t|s} = √(1 − β) and
σ²_{t|s} = β).

Corrector (Algorithms 4 and 5), M times at s, with g = ∇log p_s(x) for an event of D numbers:

    x ← x + ε·g + √(2ε)·z,    ε = 2·a·(snr·‖z‖/‖g‖)²,    a = α²_{s|s'} (1 − β on VP, 1 on VE),

s' being the next time, after the last one by a step of the same length (t = 1 at most). The published code averages
‖z‖ and ‖g‖ over the batch, so that samples depend on their neighbours. With norms of each sample the steps would depend
on z and x, which does not keep p_s however small they are: noise is too strong by (D + 2)/D, and p_s·‖g‖² is sampled in
place of p_s. So for ‖z‖ stands `ζ = √D + 2`, which noise exceeds one time in 300; and ‖g‖ is the norm of each sample
but at least ζ/σ, which is to say that the noise prediction −σ·g counts by its length only where it is longer than noise
is (‖N‖² ≤ D in the mean), as guidance and errors of the network make it. Hence
`ε = 2·a·snr²·σ²·min(1, ζ²/‖σ·g‖²)`.

The corrector's own error does not fade on fine grids: it settles at a law that is off by O(snr²), as one with σ ≫ the
data's spread settles at 1/(1 − snr²) times the variance.

References:
    Song et al. 2021, Algorithms 2 to 5, appendix G. https://arxiv.org/abs/2011.13456
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, final

import torch
from attrs import field as attribute, frozen, validators
from torch import Tensor

from fm_core import Field, Plan, Prediction, ProbabilityPath, Row, Solver, TableSolver, TimeError, registry
from fm_core.gaussian import check_times
from fm_core.levels import levels
from fm_core.protocols import OnStep
from fm_core.randomness import normal
from fm_core.shapes import over

__all__ = ["PredictorCorrector", "reverse_diffusion_plan"]


def reverse_diffusion_plan(path: ProbabilityPath, times: Tensor) -> Plan:
    """The table of reverse diffusion on a grid, N rows in the score; no noise in a step to σ = 0.

    Args:
        path: Gaussian path.
        times: Grid, float64, shape (N+1,), strictly increasing.
    """
    alpha, sigma = levels(path, times)
    ratio = alpha[:-1] / alpha[1:]
    r = ratio * sigma[1:] / sigma[:-1]
    squared = sigma[:-1].square() * (1 - r) * (1 + r)
    noise = squared.sqrt().where(sigma[1:] > 0, 0.0)
    weights = zip(times[1:].tolist(), (2 - ratio).tolist(), squared.tolist(), noise.tolist(), strict=True)
    rows = [Row(t, ((k, state),), ((k, score),), std) for k, (t, state, score, std) in enumerate(weights)]
    return Plan(Prediction.SCORE, float(times[0]), rows)


def _predictor(predictor: Any) -> Solver:
    if predictor is not None:
        return registry.from_config("solver", predictor)  # type: ignore[no-any-return]
    return TableSolver(reverse_diffusion_plan, space=Prediction.SCORE, order=1, stochastic=True)


@final
@frozen(eq=False)
class PredictorCorrector:
    """Predictor–corrector sampling; see the head of this module.

    Args:
        predictor: A solver, its name, or `{"name": …, **options}`, of which every step is taken alone (one with a
            history starts anew each time); None is reverse diffusion.
        corrector_steps: M, steps of Langevin dynamics at every new time; 0 is the predictor alone.
        snr: Ratio of the corrector's signal to its noise, ‖ε·g‖/‖√(2ε)·z‖, in (0, 1).

    Raises:
        ValueError: If M is no whole number ≥ 0, or snr outside (0, 1), where the corrector is stable.
    """

    predictor: Solver = attribute(default=None, converter=_predictor)
    corrector_steps: int = attribute(default=1, validator=[validators.instance_of(int), validators.ge(0)])
    snr: float = attribute(default=0.16, validator=[validators.gt(0.0), validators.lt(1.0)])

    order = 1
    stochastic = True
    geometries = frozenset({"euclidean"})

    @property
    def needs(self) -> frozenset[Prediction]:
        """The score, and what the predictor needs."""
        return frozenset({Prediction.SCORE}) | frozenset(self.predictor.needs)

    @property
    def evals_per_step(self) -> int:
        """The predictor's, and one for every corrector step."""
        return self.predictor.evals_per_step + self.corrector_steps

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
        """Carries states x `(B, *D)` from `times[0]` to `times[-1]`, correcting at every time but the first.

        Args:
            field: Field to follow.
            x: States, shape `(B, *D)`.
            times: Grid, `(N+1,)`, strictly increasing.
            cond: Condition, any pytree with the batch first, or None.
            generator: Draws the noise of predictor and corrector.
            on_step: Called with `(t, x)` for the first and every corrected state.

        Raises:
            TimeError: If the grid falls.
        """
        grid = check_times(times)
        if grid[0] > grid[-1]:
            raise TimeError(
                f"a stochastic solver cannot invert: the grid falls from {grid[0]:.6g} to {grid[-1]:.6g}; "
                "use a deterministic solver (ddim, heun, …) for inversion"
            )
        beyond = (2 * grid[-1:] - grid[-2:-1]).clamp(max=1.0)
        alpha, sigma = levels(field.path, torch.cat([grid, beyond]))
        if on_step:
            on_step(float(grid[0]), x)
        for i, (start, stop) in enumerate(pairwise(grid), 1):
            ends = torch.stack([start, stop])
            x = self.predictor.solve(field, x, ends, cond=cond, generator=generator)
            if sigma[i]:
                x = self._correct(
                    field, x, float(stop), (float(alpha[i] / alpha[i + 1]) * self.snr, float(sigma[i])), cond, generator
                )
            if on_step:
                on_step(float(stop), x)
        return x

    def _correct(
        self,
        field: Field,
        x: Tensor,
        t: float,
        scale: tuple[float, float],
        cond: Any,
        generator: torch.Generator | None,
    ) -> Tensor:
        """M steps of Langevin dynamics at t, for `scale` the pair (√a·snr, σ)."""
        (snr, sigma), longest = scale, math.sqrt(x[0].numel()) + 2
        for _ in range(self.corrector_steps):
            score = field.predict(x, t, cond, Prediction.SCORE)
            length = torch.linalg.vector_norm(score.flatten(1), dim=1).clamp(min=longest / sigma)
            step = over(2 * (snr * longest / length).square(), x)
            noise = normal(x.shape, generator=generator, dtype=x.dtype, device=x.device)
            x = x + step * score + (2 * step).sqrt() * noise
        return x
