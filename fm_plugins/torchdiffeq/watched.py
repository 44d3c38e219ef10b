"""The right-hand side that torchdiffeq sees: the field's velocity, counted, kept inside the interval, and checked.

Its `callback_*` methods are torchdiffeq's: it calls them before every step, ahead of its own asserts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fm_core.errors import BudgetError, DivergenceError
from fm_core.field import Field
from fm_core.prediction import Prediction
from fm_core.shapes import time_dtype

if TYPE_CHECKING:
    from fm_plugins.torchdiffeq.adaptive import AdaptiveODE

__all__ = ["Watched"]


class Watched:
    """`u(t, x)` of one solve.

    Args:
        solver: Whose budget and tolerances count.
        field: Gives the velocity.
        dtype: Dtype in which the network is asked.
        cond: Condition, any pytree with the batch first, or None.
        ends: First and last time of the solve.
        follow_steps: Whether `until` is the end of the step that is being tried, rather than of the solve (adjoint: the
            backward pass goes over the same field in other steps).
    """

    def __init__(
        self,
        solver: AdaptiveODE,
        field: Field,
        dtype: torch.dtype,
        cond: Any,
        ends: tuple[float, float],
        *,
        follow_steps: bool,
    ) -> None:
        self.solver, self.field, self.dtype, self.cond, self.ends = solver, field, dtype, cond, ends
        self.follow_steps = follow_steps
        self.time_dtype = time_dtype(dtype)
        self.low, self.high = _inside(min(ends), max(ends), self.time_dtype)
        self.until: Tensor | None = None
        self.reached = ends[0]
        self.nfe, self.backward = 0, False

    def start_over(self) -> None:
        """Counts from 0 again: the forward pass is over, and calls from now on are an adjoint pass."""
        self.nfe, self.reached, self.backward = 0, self.ends[1], True

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        """The velocity at time t `()` and states x `(B, *D)`, in the dtype of x."""
        if self.nfe >= self.solver.max_nfe:
            raise self._exhausted()
        self.nfe += 1
        # Rounding to float32, and the trial step that chooses the first one, would leave the interval. Detached, lest
        # the adjoint pass integrate a gradient of t as well.
        t = t.detach().to(self.time_dtype).clamp(self.low, self.high)
        batch = x.shape[:1]
        until = t.new_tensor(self.ends[1]) if self.until is None else self.until
        velocity: Tensor = self.field.predict(
            x.to(self.dtype), t.expand(batch), self.cond, Prediction.VELOCITY, until=until.expand(batch)
        )
        # A sum is one pass and finite only if all its terms are; a finite velocity may still overflow it.
        if not math.isfinite(velocity.detach().sum()) and not velocity.isfinite().all():
            raise self._not_finite(velocity, "the field's velocity is not finite", t)
        return velocity.to(x.dtype)

    def check_state(self, t: Tensor, x: Tensor) -> None:
        """Raises where a state is not finite."""
        if not math.isfinite(x.detach().sum()) and not x.isfinite().all():
            raise self._not_finite(x, "the state is not finite", t)

    def callback_step(self, t: Tensor, x: Tensor, dt: Tensor) -> None:
        """Called by torchdiffeq with a step that it is about to try, dt > 0 whatever the direction."""
        self._begin_step(t, dt)
        self.check_state(t, x)
        if self.follow_steps:
            step = dt if self.ends[0] < self.ends[1] else -dt
            self.until = (t + step).to(self.time_dtype).clamp(self.low, self.high)

    def callback_step_adjoint(self, t: Tensor, states: tuple[Tensor, ...], dt: Tensor) -> None:
        """The same for a step of the adjoint ODE: a gradient by t, the state, its adjoint, gradients of parameters."""
        self._begin_step(t, dt)
        if not all(math.isfinite(y.sum()) or y.isfinite().all() for y in states):
            raise DivergenceError(f"{self._title}: the adjoint is not finite at t = {self.reached:.6g}, {self._spent}")

    def _begin_step(self, t: Tensor, dt: Tensor) -> None:
        # torchdiffeq counts an adjoint pass along falling times in negative ones.
        self.reached = abs(float(t))
        if not t + dt > t:
            raise self._stalled()

    @property
    def _title(self) -> str:
        return f"{self.solver.method} from t = {self.ends[0]:.6g} to {self.ends[1]:.6g}"

    @property
    def _spent(self) -> str:
        tolerances = f"rtol = {self.solver.rtol:g}, atol = {self.solver.atol:g}"
        return f"after {self.nfe} network calls{' of the adjoint pass' if self.backward else ''} ({tolerances})"

    def _exhausted(self) -> BudgetError:
        return BudgetError(
            f"{self._title} got as far as t = {self.reached:.6g} and its budget is spent, {self._spent}. "
            "Loosen the tolerances (they cannot be tighter than the network is precise), raise max_nfe, or take a "
            "fixed grid (solver='heun', nfe=…): a network that is not smooth costs an adaptive solver without bound."
        )

    def _stalled(self) -> DivergenceError:
        return DivergenceError(
            f"{self._title}: the step size fell to zero at t = {self.reached:.6g}, {self._spent}. The solution blows "
            "up or the field jumps there, or the tolerances are far below the network's precision: keep away from "
            "that time, or loosen them."
        )

    def _not_finite(self, values: Tensor, what: str, t: Tensor) -> DivergenceError:
        bad = (~values.isfinite()).reshape(values.shape[0], -1).any(1)
        samples = f"{int(bad.sum())} of {len(bad)} samples (the first is {int(bad.nonzero()[0])})"
        return DivergenceError(
            f"{self._title}: {what} at t = {float(t):.6g} for {samples}, {self._spent}. "
            "Check the network's weights and its inputs at that time; a singular end is avoided by path.span."
        )


def _inside(low: float, high: float, dtype: torch.dtype) -> tuple[float, float]:
    """The interval's ends rounded to `dtype` inwards, so that no rounded time lies outside."""
    ends = torch.tensor([low, high], dtype=torch.float64)
    rounded = ends.to(dtype)
    inwards = torch.nextafter(rounded, rounded.flip(0))
    outside = torch.stack([rounded[0].double() < ends[0], rounded[1].double() > ends[1]])
    inner_low, inner_high = torch.where(outside, inwards, rounded).tolist()
    return inner_low, inner_high
