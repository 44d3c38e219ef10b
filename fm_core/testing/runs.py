"""What every solver keeps of a run: it is the run's own, its noise is the generator's, and NaN is not hidden."""

from __future__ import annotations

import contextlib
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from fm_core.field import Field
from fm_core.prediction import Prediction
from fm_core.protocols import declared
from fm_core.randomness import make_generator
from fm_core.testing.fields import FROM, GAUSSIAN, MIXTURE, PATHS, run, start
from fm_core.testing.kit import Failed, Skipped, Subject, at_most, check_of
from fm_core.testing.solvers import generator, solver_of, times_for
from fm_core.testing.traces import global_randomness

__all__: list[str] = []


@check_of("solver")
def seeds(subject: Subject) -> None:
    """Equal generators give equal states, others give others if it is stochastic, and no global state is touched."""
    solver, path = solver_of(subject), PATHS["linear"]
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
def threads_share_it(subject: Subject) -> float:
    """One solver object carries two runs at once: what it knows of a run is the run's alone.

    The two wait for each other at every network call, so that they do take turns.
    """
    solver, path = solver_of(subject), PATHS["linear"]
    grids = times_for(solver, 6), times_for(solver, 6, 0.3, 0.8)
    jobs = [(start(path, data, float(t[0]), 3), t) for data, t in zip((MIXTURE, GAUSSIAN), grids, strict=True)]
    barrier = threading.Barrier(2)

    def end(i: int, model: Any) -> Tensor:
        x, times = jobs[i]
        with torch.no_grad():
            return solver.solve(Field(model, path), x.clone(), times, generator=make_generator(i))

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
    solver, path = solver_of(subject), PATHS["linear"]
    x = start(path, MIXTURE, FROM, 2)
    network = _Failing()
    try:
        with torch.no_grad():
            end = solver.solve(Field(network, path), x, times_for(solver, 6), generator=generator())
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
