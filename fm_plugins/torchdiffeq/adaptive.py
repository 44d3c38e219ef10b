"""`AdaptiveODE`: torchdiffeq's methods as a `Solver` that stays in its interval, in its budget, and finite.

What is added to torchdiffeq here:

- The last step ends at `times[-1]` (`step_t`), and every time at which the network is asked is inside the interval.
- Every network call is counted against `max_nfe`. torchdiffeq's own guards are asserts, without which (`python -O`) a
  step size that has fallen to zero, or a NaN, repeats for ever: here both are errors, and the budget ends the rest.
- The state is integrated in float64 and rounded to x's dtype for the network and for the result: torchdiffeq reads even
  the last state off an interpolant whose terms cancel, which costs two digits, and rounds times to the state's dtype.
- The error norm is the largest of the samples' norms.

References:
    Dormand & Prince 1980. https://doi.org/10.1016/0771-050X(80)90013-3
    Chen et al. 2018, Neural ODEs, algorithm 1 (adjoint). https://arxiv.org/abs/1806.07366
"""

from __future__ import annotations

from typing import Any, final

import torch
from attrs import field, frozen, validators
from torch import Tensor
from torchdiffeq import odeint, odeint_adjoint

from fm_core.field import Field
from fm_core.gaussian import check_times
from fm_core.prediction import Prediction
from fm_core.protocols import OnStep
from fm_plugins.torchdiffeq.parameters import trainable
from fm_plugins.torchdiffeq.watched import Watched

__all__ = ["AdaptiveODE", "adaptive_heun", "bosh3", "dopri5", "dopri8", "fehlberg2"]

METHODS: dict[str, tuple[int, int]] = {
    "dopri5": (5, 6),
    "dopri8": (8, 13),
    "bosh3": (3, 3),
    "fehlberg2": (2, 2),
    "adaptive_heun": (2, 1),
}
"""Order, and network calls of a step (accepted or not); the first stage is always the last one of the step before."""


@final
@frozen
class AdaptiveODE:
    """An adaptive Runge–Kutta method with error control.

    Two network calls are spent on choosing the first step; then every step tried, accepted or not, costs
    `evals_per_step`. (With `adjoint`, one more call finds what the velocity depends on.)

    Args:
        method: One of `METHODS`.
        rtol: Error allowed in a step relative to the state.
        atol: Absolute error allowed in a step.
        max_nfe: The most network calls that one solve may make (with `adjoint`, its backward pass as many again).
        adjoint: Under gradients, solve the adjoint ODE backwards instead of differentiating through the steps: memory
            does not grow with their number, gradients are right to the tolerance. Without gradients it changes nothing.
    """

    method: str = field(default="dopri5", validator=validators.in_(METHODS))
    rtol: float = field(default=1e-5, validator=[validators.ge(0.0), validators.lt(float("inf"))])
    atol: float = field(default=1e-5, validator=[validators.gt(0.0), validators.lt(float("inf"))])
    max_nfe: int = field(default=10_000, validator=[validators.instance_of(int), validators.ge(1)])
    adjoint: bool = field(default=False, validator=validators.instance_of(bool))

    needs = frozenset({Prediction.VELOCITY})
    geometries = frozenset({"euclidean"})
    stochastic = False

    @property
    def order(self) -> int:
        """Order of the solution that is carried on."""
        return METHODS[self.method][0]

    @property
    def evals_per_step(self) -> int:
        """Network calls of a step, accepted or not."""
        return METHODS[self.method][1]

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
        """Carries states x `(B, *D)` along the field from `times[0]` to `times[-1]`.

        Args:
            field: Field to follow; asked for its velocity inside the interval only.
            x: States, shape `(B, *D)`.
            times: The interval's ends, and between them times to report, `(N + 1,)`, strictly monotone; falling to
                invert. Steps do not stop at the times between: those states are interpolated by a quartic, so asking
                for them changes neither the result nor the number of network calls.
            cond: Condition, any pytree with the batch first, or None.
            generator: Not used: nothing is random.
            on_step: Called with `(t, x)` for the first state and every reported one, once the solve is over.

        Returns:
            States at `times[-1]`, shape `(B, *D)`, dtype of x.

        Raises:
            BudgetError: If `max_nfe` calls do not suffice.
            DivergenceError: If a prediction or a state is not finite, or the step size falls to zero.
            TimeError: If the times are not strictly monotone in [0, 1].
            ValueError: If `adjoint` finds no network whose parameters it could differentiate.
        """
        grid = check_times(times)
        reported = grid if on_step else grid[[0, -1]]
        adjoint = self.adjoint and torch.is_grad_enabled()
        y = x.to(torch.float64)
        velocity = Watched(self, field, x.dtype, cond, (float(grid[0]), float(grid[-1])), follow_steps=not adjoint)
        velocity.check_state(grid[0], y)
        integrate, extra = odeint, {}
        if adjoint:
            # torchdiffeq runs falling times as rising negative ones, and turns round `options` but not these. Its own
            # error norm of the pass takes ours for the state and the adjoint, and a mean for each parameter.
            ends = reported[:-1] if grid[0] < grid[-1] else -reported[:-1]
            integrate = odeint_adjoint
            extra = {
                "adjoint_params": trainable(field, velocity, y),
                "adjoint_options": {"step_t": ends.to(y.device)},
            }
        states = integrate(
            velocity,
            y,
            reported.to(y.device),
            rtol=self.rtol,
            atol=self.atol,
            method=self.method,
            options={"norm": hardest_rms, "step_t": grid[-1:].to(y.device)},
            **extra,
        )
        velocity.start_over()
        if on_step:
            on_step(float(grid[0]), x)
            for t, state in zip(grid[1:].tolist(), states[1:]):
                on_step(t, state.to(x.dtype))
        result: Tensor = states[-1].to(x.dtype)
        return result


def hardest_rms(scaled: Tensor) -> Tensor:
    """The largest root mean square of a sample, for errors `(B, *D)` over their tolerances.

    Step sizes are no function to differentiate: at an error of 0 the root has no gradient.
    """
    return scaled.detach().reshape(scaled.shape[0], -1).square().mean(1).amax().sqrt()


def dopri5(*, rtol: float = 1e-5, atol: float = 1e-5, max_nfe: int = 10_000, adjoint: bool = False) -> AdaptiveODE:
    """Dormand–Prince 5(4); see `AdaptiveODE`."""
    return AdaptiveODE("dopri5", rtol, atol, max_nfe, adjoint)


def dopri8(*, rtol: float = 1e-5, atol: float = 1e-5, max_nfe: int = 10_000, adjoint: bool = False) -> AdaptiveODE:
    """Prince–Dormand 8(7), for tight tolerances in float64; see `AdaptiveODE`."""
    return AdaptiveODE("dopri8", rtol, atol, max_nfe, adjoint)


def bosh3(*, rtol: float = 1e-5, atol: float = 1e-5, max_nfe: int = 10_000, adjoint: bool = False) -> AdaptiveODE:
    """Bogacki–Shampine 3(2); see `AdaptiveODE`."""
    return AdaptiveODE("bosh3", rtol, atol, max_nfe, adjoint)


def fehlberg2(*, rtol: float = 1e-5, atol: float = 1e-5, max_nfe: int = 10_000, adjoint: bool = False) -> AdaptiveODE:
    """Runge–Kutta–Fehlberg 2(1); see `AdaptiveODE`."""
    return AdaptiveODE("fehlberg2", rtol, atol, max_nfe, adjoint)


def adaptive_heun(
    *, rtol: float = 1e-5, atol: float = 1e-5, max_nfe: int = 10_000, adjoint: bool = False
) -> AdaptiveODE:
    """Heun 2(1), whose second stage serves as the next step's first; see `AdaptiveODE`."""
    return AdaptiveODE("adaptive_heun", rtol, atol, max_nfe, adjoint)
