"""What every solver keeps of a run: it is the run's own, its noise is the generator's, NaN is not hidden, and what
comes in reaches what goes out: conditions, events of any shape, gradients.
"""

from __future__ import annotations

import contextlib
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from fm_core.field import Model
from fm_core.prediction import Prediction
from fm_core.protocols import declared
from fm_core.randomness import BlockGenerator, make_generator
from fm_core.testing.fields import FROM, GAUSSIAN, MIXTURE, field_for, run, start
from fm_core.testing.guidances import LABELS, Conditional
from fm_core.testing.kit import Failed, Skipped, Subject, at_most, check_of
from fm_core.testing.solvers import adaptive, generator, path_for, solver_of, times_for
from fm_core.testing.traces import global_randomness

__all__: list[str] = []


@check_of("solver")
def seeds(subject: Subject) -> None:
    """Equal generators give equal states, others give others if it is stochastic, and no global state is touched."""
    solver = solver_of(subject)
    path = path_for(solver)
    times = times_for(solver, 5)
    x = start(path, MIXTURE, float(times[0]), 3)

    def end(seed: int) -> Tensor:
        return run(solver, path, MIXTURE, x, times, generator=make_generator(seed)).x

    global_randomness(lambda: end(0))
    if not torch.equal(end(1), end(1)):
        raise Failed("two runs from equally seeded generators differ")
    if declared(solver, "stochastic") == torch.equal(end(1), end(2)):
        found = "are equal" if declared(solver, "stochastic") else "differ"
        raise Failed(f"stochastic = {declared(solver, 'stochastic')}, but runs from two seeds {found}")


@check_of("solver")
def condition_reaches_the_network(subject: Subject) -> float:
    """Every sample ends where the network takes it that knows its condition alone, be that a tensor or a pytree.

    A network that is told the labels of a mixture is compared with networks that know one component each.
    """
    solver, worst = solver_of(subject), 0.0
    path, times = path_for(solver), times_for(solver, 6, 0.3, 0.6)
    model = Conditional(path)
    x, labels = start(path, MIXTURE, float(times[0]), 6), torch.arange(6) % LABELS

    def end(network: Any, cond: Any) -> Tensor:
        with torch.no_grad():
            return solver.solve(
                field_for(solver, network, path), x.clone(), times, cond=cond, generator=BlockGenerator(1, 0, 6)
            )

    known = torch.stack([end(law.model(path), None) for law in model.laws[:LABELS]])[labels, torch.arange(6)]
    of_dict = Model(lambda x, t, cond=None: model(x, t, None if cond is None else cond["label"]), "velocity")
    for network, cond in ((model, labels), (of_dict, {"label": labels})):
        worst = max(worst, float((end(network, cond) - known).abs().max()))
    return at_most(worst, 1e-2 if adaptive(solver) else 1e-9, "samples end away from where their conditions lead, by")


@check_of("solver")
def images_are_rows_of_numbers(subject: Subject) -> float:
    """Images end where the same numbers in a row end: no step looks at the channels or the width of an event."""
    solver, ends = solver_of(subject), list[Tensor]()
    path, times = path_for(solver), times_for(solver, 6, 0.3, 0.6)
    x = torch.randn(3, 12, generator=make_generator(4), dtype=torch.float64)
    for shape in ((12,), (3, 2, 2)):
        field, state = field_for(solver, Conditional(path, shape=shape), path), x.reshape(3, *shape)
        with torch.no_grad():
            end = solver.solve(field, state, times, generator=BlockGenerator(1, 0, 3))
        ends.append(end.reshape(3, 12))
    worst = float((ends[1] - ends[0]).abs().max())
    return at_most(worst, 1e-9, "reshaped, the same numbers end elsewhere, by")


@check_of("solver")
def gradients_pass(subject: Subject) -> float:
    """With gradients on, the last state can be differentiated by the first, as `sample(grad=True)` promises.

    The derivative along a direction is compared with the difference quotient; adaptive solvers, whose steps jump, with
    the closed-form flow of a Gaussian.
    """
    solver = solver_of(subject)
    path = path_for(solver)
    times, field = times_for(solver, 6, 0.3, 0.6), field_for(solver, GAUSSIAN.model(path), path)
    x = start(path, GAUSSIAN, float(times[0]), 3).requires_grad_()
    way = torch.randn(x.shape, generator=make_generator(6), dtype=x.dtype)

    def end(state: Tensor) -> Tensor:
        return (way * solver.solve(field, state, times, generator=BlockGenerator(1, 0, 3))).sum()

    with torch.enable_grad():
        last = end(x)
    if not last.requires_grad:
        raise Failed("with gradients on, its last state has none: somewhere it is detached")
    (gradient,) = torch.autograd.grad(last, x, allow_unused=True)
    if gradient is None or not bool(gradient.isfinite().all()):
        raise Failed("the gradient of its last state by the first is missing or not finite")
    if adaptive(solver):
        alpha, sigma = path.alpha(times), path.sigma(times)
        spread = (alpha.square() * GAUSSIAN.stds[0] ** 2 + sigma.square()).sqrt()
        return at_most(float((gradient - spread[-1] / spread[0] * way).abs().max()), 1e-2, "its gradient is off by")
    with torch.no_grad():
        there, back = (end(x + h * way) for h in (1e-4, -1e-4))
    quotient, slope = float((there - back) / 2e-4), float((gradient * way).sum())
    return at_most(abs(slope - quotient) / (1 + abs(quotient)), 1e-6, "its gradient is off from the quotient by")


@check_of("solver")
def threads_share_it(subject: Subject) -> float:
    """One solver object carries two runs at once: what it knows of a run is the run's alone.

    The two wait for each other at every network call, so that they do take turns.
    """
    solver = solver_of(subject)
    path = path_for(solver)
    grids = times_for(solver, 6), times_for(solver, 6, 0.3, 0.8)
    jobs = [(start(path, data, float(t[0]), 3), t) for data, t in zip((MIXTURE, GAUSSIAN), grids, strict=True)]
    barrier = threading.Barrier(2)

    def end(i: int, model: Any) -> Tensor:
        x, times = jobs[i]
        with torch.no_grad():
            return solver.solve(field_for(solver, model, path), x.clone(), times, generator=make_generator(i))

    plain = MIXTURE.model(path)
    alone = [end(i, plain) for i in range(2)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(end, range(2), [_Waiting(plain, barrier)] * 2))
    worst = max(float((x - y).abs().max()) for x, y in zip(alone, together, strict=True))
    return at_most(worst, 1e-10, "a run beside another differs from the run alone by")


@frozen
class _Waiting:
    """A model that waits for the other thread before it answers."""

    model: Any
    barrier: threading.Barrier
    predicts = (Prediction.VELOCITY,)

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Any:
        with contextlib.suppress(threading.BrokenBarrierError):  # the other run has ended
            self.barrier.wait(timeout=0.5)
        return self.model(x_t, t)


@check_of("solver")
def stops_on_nan(subject: Subject) -> None:
    """Where the network answers NaN it raises or ends in NaN, soon: it neither hides it nor tries for ever."""
    solver = solver_of(subject)
    path = path_for(solver)
    x = start(path, MIXTURE, FROM, 2)
    network = _Failing()
    try:
        with torch.no_grad():
            end = solver.solve(field_for(solver, network, path), x, times_for(solver, 6), generator=generator())
    except _EndlessError as error:
        raise Failed(f"the network answered NaN {_PATIENCE} times and it still asks") from error
    except Exception:
        return
    if network.calls < 2:
        raise Skipped("it asks the network once")
    if bool(end.isfinite().all()):
        raise Failed("the network answered NaN, and the last state is finite: it hides what went wrong")


_PATIENCE = 2000


class _EndlessError(BaseException):
    """No `except Exception` of the solver's own catches it."""


class _Failing:
    """A velocity that is NaN from the second call on."""

    predicts = (Prediction.VELOCITY,)

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        self.calls += 1
        if self.calls > _PATIENCE:
            raise _EndlessError
        return x_t * (math.nan if self.calls > 1 else 0.1)
