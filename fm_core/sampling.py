"""Sampling: from a seed to a source, along the field by a solver; what was spent is said.

Network calls are counted in the field, so `Samples.nfe` is what happened, whatever the solver declares. Sampling
runs without gradients unless asked, and leaves the network in the mode in which it found it. Chunks are written into
one tensor as they come, and those that are finished outlive an error in a later one.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from attrs import evolve, frozen
from torch import Tensor

from fm_core import registry
from fm_core.chunks import apart, streamed
from fm_core.compiling import Compiler, compiler_of
from fm_core.course import Budget, Course, asked_times, course_of, solver_of, solver_title
from fm_core.divergence import located
from fm_core.drawing import Drawing, state_of
from fm_core.errors import BudgetError, DivergenceError, TimeError
from fm_core.evaluating import evaluating
from fm_core.executing import execute
from fm_core.field import Field
from fm_core.guiding import of_rows
from fm_core.prediction import Prediction
from fm_core.protocols import Codec, OnStep, Solver
from fm_core.randomness import check_seed, fresh_seed
from fm_core.samples import Samples
from fm_core.shapes import check_batch, map_tensors
from fm_core.signatures import check_arguments
from fm_core.transitions import Recorder, require_transitions

if TYPE_CHECKING:
    from fm_core.pipeline import Pipeline

__all__ = ["Samples", "sample"]


def sample(
    pipeline: Pipeline,
    shape: int | Sequence[int] | None = None,
    *,
    x0: Tensor | None = None,
    x1: Tensor | None = None,
    start: float | None = None,
    cond: Any = None,
    steps: int | None = None,
    nfe: int | None = None,
    times: Sequence[float] | Tensor | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    trajectory: bool = False,
    chunk: int | None = None,
    final: Literal["data", "none"] = "data",
    grad: bool = False,
    throw: bool = True,
    log_prob: bool = False,
    compile: bool | Literal["network"] = False,
    on_step: OnStep | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Samples:
    """Draws samples: carries source samples along the field from t = 0 to the data.

    Sample i depends on the seed and on i alone (with a table solver): not on how many are drawn, nor on `chunk`.

    Args:
        pipeline: What samples: path, model, guidance, solver, grid.
        shape: Shape `(B, *D)` of the states, or B where the network remembers D from its training.
        x0: Source samples `(B, *D)`, unscaled, in place of drawn ones.
        x1: Data `(B, *E)` to start from, noised to time `start`: editing.
        start: Time in (0, 1) at which to start from `x1`.
        cond: Condition, any pytree with the batch first.
        steps: Number of steps. Give one of `steps`, `nfe`, `times`; for adaptive solvers tolerances, `times` to
            report, or nothing.
        nfe: The most network calls to spend.
        times: The grid itself, strictly increasing. One that ends before the data gives the noisy states there.
        rtol, atol: Tolerances of an adaptive solver.
        seed: Seed of everything drawn; fresh entropy for None, and `Samples.seed` says which.
        generator: Draws the seed, in place of `seed`.
        trajectory: Whether to keep the states at all grid points.
        chunk: Number of samples to carry at once; all by default. An error, or Ctrl-C, in a later chunk carries those
            of the chunks before it as `error.finished`.
        final: Where the network's span stops short of t = 1, "data" closes with its data prediction, "none" stops
            there.
        grad: Whether to keep gradients.
        throw: Whether to raise on non-finite samples; otherwise `status` says which they are.
        log_prob: Whether to record the noisy states of a stochastic table with the log-probabilities of their
            transitions, for `transition_log_prob`.
        compile: Whether to compile whole blocks of a table's steps with the network, once for each kind of run: several
            seconds for a small network, minutes for a large one, kept with the pipeline. "network" compiles the network
            alone, for any solver and guidance; around guidance that differentiates, True does so too.
        on_step: Called with `(t, x)` at the first state and every grid point (compiled, after each block).
        device, dtype: Where and in what the states live; by default the network's.

    Returns:
        The samples, decoded if the pipeline has a codec, with nfe, seed and status.

    Raises:
        ArgumentError: For arguments of another type than these, and seeds that are no whole number ≥ 0.
        BudgetError: For no budget, more than one, or one that cannot be met.
        CompatError: For `log_prob` with a solver that adds no noise, or is no table; for `compile` with a solver that
            is no table, or with a network that cannot be compiled.
        TimeError: For times that are not monotone or outside the span.
        ShapeError: For shapes that do not fit.
        DivergenceError: For non-finite states: at which step and time, and in how many samples.
    """
    check_arguments(
        sample,
        shape=shape,
        x0=x0,
        x1=x1,
        times=times,
        generator=generator,
        chunk=chunk,
        compile=compile,
        on_step=on_step,
    )
    solver = solver_of(pipeline, rtol, atol)
    field = Field(pipeline.model, pipeline.path, pipeline.guidance)
    if pipeline.codec is not None and x1 is not None:
        with torch.no_grad():
            x1 = pipeline.codec.encode(x1.to(pipeline.placement[0]))
    shape, device, dtype = state_of(pipeline, shape, x0, x1, device, dtype)
    check_batch(cond, shape[0], "cond")
    if chunk is not None and chunk < 1:
        raise BudgetError(f"chunk is a number of samples ≥ 1; got {chunk}")
    course = course_of(pipeline, solver, field, Budget(steps, nfe, asked_times(times), _start(x1, start), final))
    if log_prob:
        require_transitions(course.plan, solver_title(solver))
    compiler = compiler_of(pipeline, field, course.plan, compile, grad=grad) if compile else None
    drawing = Drawing(pipeline.path, course, shape, _seed(seed, generator), device, dtype, x0, x1)
    run = _Run(field, solver, course, drawing, cond, pipeline.codec, compiler, trajectory, log_prob, throw, on_step)
    running = compiler.running() if compiler else contextlib.nullcontext()
    with contextlib.nullcontext() if grad else torch.no_grad(), evaluating(pipeline.model), running:
        return streamed(run.chunk, shape[0], chunk or shape[0], lambda of: f"its index and on seed={of.seed}")


def _seed(seed: int | None, generator: torch.Generator | None) -> int:
    if generator is None:
        return fresh_seed() if seed is None else check_seed(seed)
    if seed is not None:
        raise BudgetError("give seed= or generator=, not both")
    return int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))


def _start(x1: Tensor | None, start: float | None) -> float | None:
    if (x1 is None) != (start is None):
        raise TimeError("x1= and start= go together: data noised to the time start, from which the solver goes on")
    if start is not None and not 0.0 <= start < 1.0:
        raise TimeError(f"start must lie in [0, 1): t rises from the source (0) to the data (1); got {start}")
    return start


@frozen(eq=False)
class _Run:
    """What is the same for all chunks of a run."""

    field: Field
    solver: Solver
    course: Course
    drawing: Drawing
    cond: Any
    codec: Codec | None
    compiler: Compiler | None
    trajectory: bool
    log_prob: bool
    throw: bool
    on_step: OnStep | None

    def chunk(self, rows: slice) -> Samples:
        """The samples of these rows, from their draw to their finite check, decoded."""
        made = self._carried(rows)
        return made if self.codec is None else evolve(made, x=self.codec.decode(made.x))

    def _carried(self, rows: slice) -> Samples:
        states: list[Tensor] = []
        plan = self.course.plan
        recorder = Recorder(plan, self.field.path) if self.log_prob and plan is not None else None
        field = self._field(rows, self.compiler)
        try:
            x = self._states(field, rows, self._watcher(states), recorder, self.compiler)
        except DivergenceError:
            if self.throw:
                raise
            return apart(self._carried, self._diverged, rows, field.calls)
        finite = x.isfinite()
        status = finite.flatten(1).all(1) if not finite.all() else x.new_ones(len(x), dtype=torch.bool)
        if self.throw and not status.all():
            plain = self._field(rows, None)
            raise located(plain, lambda again, watch: self._states(again, rows, watch), int((~status).sum()))
        trajectory = torch.stack(states) if self.trajectory else None
        transitions = recorder.transitions() if recorder else None
        if transitions is not None and not self._is_whole(rows):
            transitions = evolve(transitions, samples=torch.arange(rows.start, rows.stop))
        return Samples(x, field.calls, self.drawing.seed, self._times, status, trajectory, transitions)

    def _diverged(self, rows: slice) -> Samples:
        x, _ = self.drawing.draw(rows)
        x, times = torch.full_like(x, math.nan), self._times
        status = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        trajectory = x.expand(len(times), *x.shape).clone() if self.trajectory else None
        return Samples(x, 0, self.drawing.seed, times, status, trajectory)

    @property
    def _times(self) -> Tensor:
        times = self.course.times
        return torch.cat([times, times.new_ones(1)]) if self.course.final else times

    def _field(self, rows: slice, compiler: Compiler | None) -> Field:
        """A field of these rows' own: what guidances remember, and the count of calls, begin with it."""
        of = self.field
        model = of.model if compiler is None else compiler.network(of.model)
        guidances = of.guidances if self._is_whole(rows) else (of_rows(guidance, rows) for guidance in of.guidances)
        return Field(model, of.path, tuple(guidances))

    def _is_whole(self, rows: slice) -> bool:
        return bool(rows.stop - rows.start == self.drawing.shape[0])

    def _states(
        self,
        field: Field,
        rows: slice,
        on_step: OnStep | None,
        recorder: Recorder | None = None,
        compiler: Compiler | None = None,
    ) -> Tensor:
        """The last states of these rows."""
        cond = map_tensors(lambda tensor: tensor[rows].to(self.drawing.device), self.cond)
        x, generator = self.drawing.draw(rows)
        if recorder:
            recorder.start(x)
        state, plan = [x], self.course.plan
        del x  # the executor alone holds the first state, and forgets it after its last use
        if plan is not None:
            run = compiler.execute if compiler is not None and compiler.whole else execute
            return run(plan, field, state.pop(), cond=cond, generator=generator, on_step=on_step, on_noise=recorder)
        times, first = self.course.times, state.pop()
        if self.drawing.x0 is not None:
            first = first.clone()  # a solver may write into it, and it may be the caller's own tensor
        end = self.solver.solve(field, first, times, cond=cond, generator=generator, on_step=on_step)
        if not self.course.final:
            return end
        closed: Tensor = field.predict(end, float(times[-1]), cond, Prediction.DATA)
        if on_step:
            on_step(1.0, closed)
        return closed

    def _watcher(self, states: list[Tensor]) -> OnStep | None:
        """Who is told of every grid point: the caller, the trajectory, observers."""
        hook = registry.observers("fm_sample_step")
        watchers: list[OnStep] = [self.on_step] if self.on_step else []
        if self.trajectory:
            watchers.append(lambda _, x: states.append(x))
        if hook is not None:
            watchers.append(lambda t, x: registry.notify(hook, t=t, x=x))
        if len(watchers) < 2:
            return watchers[0] if watchers else None

        def on_step(t: float, x: Tensor) -> None:
            for watcher in watchers:
                watcher(t, x)

        return on_step
