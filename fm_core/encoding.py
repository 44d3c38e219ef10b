"""Inversion: from data to the source samples that sampling carries there, along the reversed grid.

A deterministic table on a falling grid integrates the same ODE backwards, so `sample(x0=encode(x1).x)` is `x1` to the
solver's order. Both ends of the path are sampling's own, turned round.

The data end. There are three, by where sampling ends:

- At a state that is the sample: so is the first one here.
- With the data prediction (`final="data"`, and the network's span stops short of t = 1, or the path is `closing`):
  x1 = D(y) at the last time, that is y = α·x1 + σ·N(y).
- At t = 1 with σ = 0, by a table of the data prediction, which cannot begin there, for data say nothing of the noise.
  It begins inside, at the path's `margin`. In d(y/α) = N·d(σ/α), whose N = −σ·score vanishes with σ, the flow between
  is y = α·x1 + ½·σ·N(y) up to O(σ⁴).

So y = α·x1 + c·σ·N(y) with c = 0, 1, ½. It is solved from y = α·x1 by one step of the fixed-point iteration

    y ← α·x1 + c·σ·N(α·x1) = α·x1 + c·α·(x1 − D(α·x1)),

whose error shrinks by c·‖I − α·∂D/∂y‖: for Gaussian data of variance v that is c·σ²/(α²·v + σ²), 10⁻³ where σ is small
beside the data, and O(σ⁴) is left. One network call, as many as sampling's closing costs.

The source end. States at the first time of sampling are divided by σ there: `encode` gives x0 as `sample(x0=)` takes
it. A table of another space than the velocity does not step to α = 0, and ends inside by the margin; its last state
is read as `x0 = N(y)`, for one more call, which leaves O(α²/σ²).

References:
    Song et al. 2021, DDIM, section 4.3. https://arxiv.org/abs/2010.02502
    Hairer, Nørsett & Wanner 1993, II.8 (adjoint methods). https://doi.org/10.1007/978-3-540-78862-1
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from attrs import frozen
from torch import Tensor

from fm_core.chunks import apart, streamed
from fm_core.course import Budget, solver_of, solver_title
from fm_core.divergence import located
from fm_core.drawing import state_kind
from fm_core.errors import BudgetError, DivergenceError, ShapeError, TimeError
from fm_core.evaluating import evaluating
from fm_core.executing import execute
from fm_core.field import Field
from fm_core.gaussian import check_times
from fm_core.guiding import of_rows
from fm_core.inversion import Inversion, inversion_of
from fm_core.prediction import Prediction
from fm_core.protocols import OnStep, Solver, declared
from fm_core.shapes import check_batch, map_tensors
from fm_core.signatures import check_arguments

if TYPE_CHECKING:
    from fm_core.pipeline import Pipeline

__all__ = ["Encoded", "encode"]


@frozen(eq=False)
class Encoded:
    """Source samples, and what they cost.

    Args:
        x: Source samples x0, shape `(B, *D)`, unscaled: what `pipe.sample(x0=…)` takes.
        nfe: Network calls that each sample went through.
        times: The falling grid, float64 `(N+1,)`.
        status: Whether a sample is finite, bool `(B,)`.
        trajectory: States at these times, `(N+1, B, *D)`, if asked for.
    """

    x: Tensor
    nfe: int
    times: Tensor
    status: Tensor
    trajectory: Tensor | None = None


def encode(
    pipeline: Pipeline,
    x1: Tensor,
    *,
    cond: Any = None,
    steps: int | None = None,
    nfe: int | None = None,
    times: Sequence[float] | Tensor | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    trajectory: bool = False,
    chunk: int | None = None,
    final: Literal["data", "none"] = "data",
    grad: bool = False,
    throw: bool = True,
    on_step: OnStep | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Encoded:
    """Inverts sampling: carries data to the source samples from which `pipe.sample(x0=…)` gives them back.

    Args:
        pipeline: A pipeline with a deterministic solver.
        x1: Data, shape `(B, *E)`; the codec, if there is one, encodes them first.
        cond: Condition, any pytree with the batch first.
        steps, nfe, times: The budget, as in `sample`: one of them. `times` may be the sampling run's rising grid.
        rtol, atol: Tolerances of an adaptive solver.
        trajectory: Whether to keep the states at all grid points.
        chunk: Number of samples to carry at once; all by default. An error, or Ctrl-C, in a later chunk carries those
            of the chunks before it as `error.finished`.
        final: What the data are: as `sample` was asked for, its closing data prediction ("data") or the states at the
            end of the network's span ("none").
        grad: Whether to keep gradients.
        throw: Whether to raise on non-finite results; otherwise `status` says which they are.
        on_step: Called with `(t, x)` at the first state and every grid point.
        device, dtype: Where and in what the states live; by default the network's.

    Returns:
        The source samples, with nfe, grid and status.

    Raises:
        TimeError: If the solver is stochastic, or for a grid that is not monotone or does not reach the ends.
        BudgetError: For no budget, more than one, or one that cannot be met.
        ShapeError: For shapes that do not fit.
        DivergenceError: For non-finite states.
    """
    check_arguments(encode, times=times, chunk=chunk, on_step=on_step)
    solver = solver_of(pipeline, rtol, atol)
    if declared(solver, "stochastic"):
        raise TimeError(
            f"{solver_title(solver)} is stochastic and cannot invert: its noise is not in the data. Sample and encode "
            "with a deterministic solver (ddim, heun, …): pipe.replace(solver='heun').encode(…)"
        )
    if not isinstance(x1, Tensor) or x1.ndim < 2 or not len(x1) or not x1.is_floating_point():
        got = f"{tuple(x1.shape)} {x1.dtype}" if isinstance(x1, Tensor) else type(x1).__name__
        raise ShapeError(f"data are a floating-point tensor (B, *E), B ≥ 1; got {got}")
    if chunk is not None and chunk < 1:
        raise BudgetError(f"chunk is a number of samples ≥ 1; got {chunk}")
    check_batch(cond, len(x1), "cond")
    field = Field(pipeline.model, pipeline.path, pipeline.guidance)
    asked = None if times is None else tuple(check_times(times).tolist())
    course = inversion_of(pipeline, solver, field, Budget(steps, nfe, asked, None, final))
    run = _Run(pipeline, solver, course, x1, cond, trajectory, throw, on_step, device, dtype)
    with contextlib.nullcontext() if grad else torch.no_grad(), evaluating(pipeline.model):
        return streamed(run.carried, len(x1), chunk or len(x1), lambda _: "its data and its condition")


def _rows_on(rows: slice, device: torch.device) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor[rows].to(device)


@frozen(eq=False)
class _Run:
    """What is the same for all chunks of data."""

    pipeline: Pipeline
    solver: Solver
    course: Inversion
    x1: Tensor
    cond: Any
    trajectory: bool
    throw: bool
    on_step: OnStep | None
    device: torch.device | str | None
    dtype: torch.dtype | None

    def carried(self, rows: slice) -> Encoded:
        """These rows of the data, from their first states to their finite check."""
        x, states, solver, course = self._data(rows), list[Tensor](), self.solver, self.course
        field, cond = self._field(rows), map_tensors(_rows_on(rows, x.device), self.cond)

        def watch(t: float, x: Tensor) -> None:
            if self.trajectory:
                states.append(x)
            if self.on_step:
                self.on_step(t, x)

        try:
            x0 = _run(field, solver, course, x, cond, watch if self.trajectory or self.on_step else None)
        except DivergenceError:
            if self.throw:
                raise
            return apart(self.carried, self._diverged, rows, field.calls)
        status = x0.isfinite().flatten(1).all(1)
        if self.throw and not status.all():
            plain = self._field(rows)
            raise located(plain, lambda again, look: _run(again, solver, course, x, cond, look), int((~status).sum()))
        return Encoded(x0, field.calls, course.times, status, torch.stack(states) if self.trajectory else None)

    def _data(self, rows: slice) -> Tensor:
        pipeline = self.pipeline
        x = self.x1[rows].to(self.device or pipeline.placement[0])
        x = x if pipeline.codec is None else pipeline.codec.encode(x)
        device, dtype = state_kind(pipeline, x, self.device, self.dtype)
        return x.to(device, dtype)

    def _field(self, rows: slice) -> Field:
        """A field of these rows' own: what guidances remember, and the count of calls, begin with it."""
        pipeline = self.pipeline
        whole = rows.stop - rows.start == len(self.x1)
        guidances = tuple(guidance if whole else of_rows(guidance, rows) for guidance in pipeline.guidance)
        return Field(pipeline.model, pipeline.path, guidances)

    def _diverged(self, rows: slice) -> Encoded:
        x, times = torch.full_like(self._data(rows), math.nan), self.course.times
        status = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        return Encoded(x, 0, times, status, x.expand(len(times), *x.shape).clone() if self.trajectory else None)


def _run(field: Field, solver: Solver, course: Inversion, x1: Tensor, cond: Any, on_step: OnStep | None) -> Tensor:
    start, end = float(course.times[0]), float(course.times[-1])
    state = x1
    if course.noise_share:
        state = course.alpha * x1
        away = x1 - field.predict(state, start, cond, Prediction.DATA)
        state = state + course.noise_share * course.alpha * away
    if course.plan is not None:
        state = execute(course.plan, field, state, cond=cond, on_step=on_step)
    else:
        # A solver may write into its first state, which may be the caller's own tensor.
        state = solver.solve(field, state.clone(), course.times, cond=cond, on_step=on_step)
    if course.opened:
        noise: Tensor = field.predict(state, end, cond, Prediction.NOISE)
        return noise
    return state if course.sigma == 1.0 else state / course.sigma
