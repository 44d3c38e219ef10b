"""Sampling: from a seed to a source, along the field by a solver; what was spent is said.

Network calls are counted in the field, so `Samples.nfe` is what happened, whatever the solver declares. Sampling
runs without gradients unless asked, and leaves the network in the mode in which it found it.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from attrs import frozen
from torch import Tensor, nn

from fm_core import registry
from fm_core.course import Budget, Course, course_of, solver_of, solver_title
from fm_core.divergence import located
from fm_core.errors import BudgetError, ShapeError, TimeError
from fm_core.executing import execute
from fm_core.field import Field
from fm_core.gaussian import check_times
from fm_core.prediction import Prediction
from fm_core.protocols import Guidance, OnStep, ProbabilityPath, Solver, VectorFieldModel
from fm_core.randomness import BlockGenerator, fresh_seed
from fm_core.shapes import check_batch, map_tensors
from fm_core.transitions import Recorder, Transitions, joined, require_transitions

if TYPE_CHECKING:
    from fm_core.pipeline import Pipeline

__all__ = ["Samples", "evaluating", "of_rows", "sample", "state_kind", "whole_shape"]


@frozen(eq=False)
class Samples:
    """Samples, and what they cost.

    Args:
        x: Samples, shape `(B, *D)`.
        nfe: Network calls that each sample went through (the most over the chunks, where an adaptive solver differs).
        seed: Seed that draws these samples again.
        times: Times of the trajectory, float64 `(N+1,)`.
        status: Whether a sample is finite, bool `(B,)`.
        trajectory: States at these times, `(N+1, B, *D)`, if asked for.
        transitions: The states of noisy rows and their log-probabilities, if asked for.
    """

    x: Tensor
    nfe: int
    seed: int
    times: Tensor
    status: Tensor
    trajectory: Tensor | None = None
    transitions: Transitions | None = None

    @property
    def log_prob(self) -> Tensor | None:
        """Log-probability of every noisy transition, `(B, R)` in nats, if asked for."""
        return None if self.transitions is None else self.transitions.log_prob


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
        times: The grid itself, strictly increasing.
        rtol, atol: Tolerances of an adaptive solver.
        seed: Seed of everything drawn; fresh entropy for None, and `Samples.seed` says which.
        generator: Draws the seed, in place of `seed`.
        trajectory: Whether to keep the states at all grid points.
        chunk: Number of samples to carry at once; all by default.
        final: Where the network's span stops short of t = 1, "data" closes with its data prediction, "none" stops
            there.
        grad: Whether to keep gradients.
        throw: Whether to raise on non-finite samples; otherwise `status` says which they are.
        log_prob: Whether to record the noisy states of a stochastic table with the log-probabilities of their
            transitions, for `transition_log_prob`.
        on_step: Called with `(t, x)` at the first state and every grid point.
        device, dtype: Where and in what the states live; by default the network's.

    Returns:
        The samples, decoded if the pipeline has a codec, with nfe, seed and status.

    Raises:
        BudgetError: For no budget, more than one, or one that cannot be met.
        CompatError: For `log_prob` with a solver that adds no noise, or is no table.
        TimeError: For times that are not monotone or outside the span.
        ShapeError: For shapes that do not fit.
        DivergenceError: For non-finite states: at which step and time, and in how many samples.
    """
    solver = solver_of(pipeline, rtol, atol)
    field = Field(pipeline.model, pipeline.path, pipeline.guidance)
    if pipeline.codec is not None and x1 is not None:
        with torch.no_grad():
            x1 = pipeline.codec.encode(x1.to(pipeline.placement[0]))
    shape, device, dtype = _state(pipeline, shape, x0, x1, device, dtype)
    check_batch(cond, shape[0], "cond")
    start = _start(x1, start)
    asked = None if times is None else tuple(check_times(times, (-math.inf, math.inf)).tolist())
    if chunk is not None and chunk < 1:
        raise BudgetError(f"chunk is a number of samples ≥ 1; got {chunk}")
    course = course_of(pipeline, solver, field, Budget(steps, nfe, asked, start, final))
    if log_prob:
        require_transitions(course.plan, solver_title(solver))
    if generator is not None:
        if seed is not None:
            raise BudgetError("give seed= or generator=, not both")
        seed = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
    seed = fresh_seed() if seed is None else seed
    drawing = _Drawing(pipeline.path, course, shape, seed, device, dtype, x0, x1)

    results = []
    with contextlib.nullcontext() if grad else torch.no_grad(), evaluating(pipeline.model):
        for first in range(0, shape[0], chunk or shape[0]):
            rows = slice(first, min(first + (chunk or shape[0]), shape[0]))
            results.append(_carry(field, solver, course, drawing, rows, cond, trajectory, throw, log_prob, on_step))
        x = _joined([r.x for r in results])
        x = x if pipeline.codec is None else pipeline.codec.decode(x)
    return Samples(
        x,
        nfe=max(r.nfe for r in results),
        seed=seed,
        times=results[0].times,
        status=_joined([r.status for r in results]),
        trajectory=_joined([r.trajectory for r in results if r.trajectory is not None], 1) if trajectory else None,
        transitions=joined([r.transitions for r in results if r.transitions is not None]) if log_prob else None,
    )


def _joined(parts: list[Tensor], dim: int = 0) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


@frozen(eq=False)
class _Drawing:
    """How the first states come about, for any rows of the run, again and again the same."""

    path: ProbabilityPath
    course: Course
    shape: tuple[int, ...]
    seed: int
    device: torch.device
    dtype: torch.dtype
    x0: Tensor | None
    x1: Tensor | None

    def draw(self, rows: slice) -> tuple[Tensor, BlockGenerator]:
        """The first states of these rows, and the generator that goes on to draw their noise."""
        generator = BlockGenerator(self.seed, rows.start, rows.stop, self.device)
        if self.x0 is None:
            event, path = self.shape[1:], self.path
            x0 = generator.draw(
                lambda n, g: path.sample_source((n, *event), generator=g, dtype=self.dtype, device=self.device)
            )
        else:
            x0 = self.x0[rows].to(self.device, self.dtype)
        if self.x1 is not None:
            x1 = self.x1[rows].to(self.device, self.dtype)
            t = self.course.times[0].to(self.device).expand(len(x1))
            return self.path.interpolate(x0, x1, t, generator=generator).x_t, generator
        return (x0 if self.course.scale == 1.0 else x0 * self.course.scale), generator


def _carry(
    field: Field,
    solver: Solver,
    course: Course,
    drawing: _Drawing,
    rows: slice,
    cond: Any,
    trajectory: bool,
    throw: bool,
    log_prob: bool,
    on_step: OnStep | None,
) -> Samples:
    """One chunk of samples, from its draw to its finite check."""
    cond = map_tensors(lambda tensor: tensor[rows].to(drawing.device), cond)
    field = Field(
        field.model, field.path, tuple(of_rows(guidance, rows, drawing.shape[0]) for guidance in field.guidances)
    )
    states: list[Tensor] = []
    hook = registry.observers("fm_sample_step")
    watchers: list[OnStep] = [on_step] if on_step else []
    if trajectory:
        watchers.append(lambda _, x: states.append(x))
    if hook is not None:
        watchers.append(lambda t, x: registry.notify(hook, t=t, x=x))
    recorder = Recorder(course.plan) if log_prob and course.plan is not None else None
    x = _run(field, solver, course, drawing, rows, cond, _all(watchers), recorder)
    finite = x.isfinite()
    status = finite.flatten(1).all(1) if not finite.all() else x.new_ones(len(x), dtype=torch.bool)
    if throw and not status.all():
        raise located(
            field, lambda again, watch: _run(again, solver, course, drawing, rows, cond, watch), int((~status).sum())
        )
    times = torch.cat([course.times, course.times.new_ones(1)]) if course.final else course.times
    return Samples(
        x,
        field.calls,
        drawing.seed,
        times,
        status,
        torch.stack(states) if trajectory else None,
        recorder.transitions() if recorder else None,
    )


def of_rows(guidance: Guidance, rows: slice, batch: int) -> Guidance:
    """A guidance that holds something for every sample of the batch, for these alone."""
    if rows.stop - rows.start == batch or not hasattr(guidance, "select"):
        return guidance
    return guidance.select(rows)  # type: ignore[no-any-return]


def _run(
    field: Field,
    solver: Solver,
    course: Course,
    drawing: _Drawing,
    rows: slice,
    cond: Any,
    on_step: OnStep | None,
    recorder: Recorder | None = None,
) -> Tensor:
    x, generator = drawing.draw(rows)
    if recorder:
        recorder.start(x)
    state = [x]
    del x  # the executor alone holds the first state, and forgets it after its last use
    if course.plan is not None:
        return execute(
            course.plan, field, state.pop(), cond=cond, generator=generator, on_step=on_step, on_noise=recorder
        )
    end = solver.solve(field, state.pop(), course.times, cond=cond, generator=generator, on_step=on_step)
    if course.final:
        closed: Tensor = field.predict(end, float(course.times[-1]), cond, Prediction.DATA)
        if on_step:
            on_step(1.0, closed)
        return closed
    return end


def _all(watchers: list[OnStep]) -> OnStep | None:
    if len(watchers) < 2:
        return watchers[0] if watchers else None

    def on_step(t: float, x: Tensor) -> None:
        for watcher in watchers:
            watcher(t, x)

    return on_step


_USERS: dict[int, tuple[int, list[nn.Module]]] = {}
"""By network: the runs that have it in evaluation mode, and its modules that were not."""

_USERS_LOCK = threading.Lock()


@contextlib.contextmanager
def evaluating(model: VectorFieldModel) -> Iterator[None]:
    """The network in evaluation mode, and back when the last of several threads is done with it."""
    net = getattr(model, "net", model)
    if not isinstance(net, nn.Module):
        yield
        return
    with _USERS_LOCK:
        users, modules = _USERS.get(id(net), (0, []))
        found = [m for m in net.modules() if m.training]
        for module in found:
            object.__setattr__(module, "training", False)  # Module's own first looks whether it is a parameter
        _USERS[id(net)] = (users + 1, modules + found)
    try:
        yield
    finally:
        with _USERS_LOCK:
            users, modules = _USERS.pop(id(net))
            if users > 1:
                _USERS[id(net)] = (users - 1, modules)
            else:
                for module in modules:
                    object.__setattr__(module, "training", True)


def _state(
    pipeline: Pipeline,
    shape: int | Sequence[int] | None,
    x0: Tensor | None,
    x1: Tensor | None,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> tuple[tuple[int, ...], torch.device, torch.dtype]:
    """Shape, device and dtype of the states."""
    given = next((x for x in (x1, x0) if x is not None), None)
    if (shape is None) == (given is None):
        raise ShapeError("say what to sample by one of: a shape (B, *D), x0= source samples, or x1= data with start=")
    if x0 is not None and x1 is not None and x0.shape != x1.shape:
        raise ShapeError(f"x0 and x1 must have one shape; got {tuple(x0.shape)} and {tuple(x1.shape)}")
    whole = tuple(given.shape) if given is not None else whole_shape(pipeline, shape if shape is not None else ())
    if len(whole) < 2 or min(whole) < 1:
        raise ShapeError(f"states have the shape (B, *D) with B ≥ 1 and at least one dimension D; got {whole}")
    if given is not None and not given.is_floating_point():
        raise ShapeError(f"x0 and x1 must be floating point; got {given.dtype}")
    return whole, *state_kind(pipeline, given, device, dtype)


def state_kind(
    pipeline: Pipeline, given: Tensor | None, device: torch.device | str | None, dtype: torch.dtype | None
) -> tuple[torch.device, torch.dtype]:
    """Device and dtype of the states: the network's, or those of the given tensor for a function that has none.

    Raises:
        ShapeError: If others are asked for than the network's.
    """
    default_device, default_dtype = pipeline.placement
    module = isinstance(getattr(pipeline.model, "net", None), nn.Module)
    if given is not None and not module:
        default_dtype = given.dtype
    if module and (
        (dtype or default_dtype) != default_dtype or torch.device(device or default_device).type != default_device.type
    ):
        raise ShapeError(
            f"the network is {default_dtype} on {default_device}; got dtype={dtype}, device={device}. "
            "Move the network: pipe.to(device, dtype)"
        )
    return torch.device(device or default_device), dtype or default_dtype


def whole_shape(pipeline: Pipeline, shape: int | Sequence[int]) -> tuple[int, ...]:
    """The shape `(B, *D)`, with D from the network's training where only B is given.

    Raises:
        ShapeError: If the network does not remember D.
    """
    if not isinstance(shape, int):
        return tuple(shape)
    trained = getattr(pipeline.model, "trained", None)
    if trained is None or trained.event_shape is None:
        raise ShapeError(
            f"the network does not remember the shape of a sample; give it: ({shape}, *D) instead of {shape}"
        )
    return (shape, *trained.event_shape)


def _start(x1: Tensor | None, start: float | None) -> float | None:
    if (x1 is None) != (start is None):
        raise TimeError("x1= and start= go together: data noised to the time start, from which the solver goes on")
    if start is not None and not 0.0 <= start < 1.0:
        raise TimeError(f"start must lie in [0, 1): t rises from the source (0) to the data (1); got {start}")
    return start
