"""What every solver keeps, whatever it is made of: what it costs, which times it asks at, for whom, and with what.

Where it ends is in `fm_core.testing.flows` and `laws`, what tables keep besides in `tables` and `polynomials`.
Everything runs on exact fields of Gaussian mixtures, on grids that are not uniform, so what is measured is the solver
alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fm_core.compat import made_for
from fm_core.errors import FMError
from fm_core.gaussian import GaussianPath
from fm_core.prediction import Prediction, as_prediction
from fm_core.protocols import Solver, declared
from fm_core.randomness import BlockGenerator, make_generator
from fm_core.testing.fields import FROM, MIXTURE, PATHS, TO, field_for, grid, run, start
from fm_core.testing.kit import Failed, Skipped, Subject, at_most, check_of

__all__ = [
    "adaptive",
    "deterministic",
    "free",
    "generator",
    "only_grid",
    "path_for",
    "paths_for",
    "solver_of",
    "times_for",
]


def solver_of(subject: Subject, **options: Any) -> Solver:
    """The solver under examination.

    Raises:
        Skipped: If it does not serve Gaussian paths.
    """
    if subject.takes("rtol", "atol"):
        options = {"rtol": 1e-4, "atol": 1e-4, **options}  # coarser than for samples, and so quicker
    solver: Solver = subject.build(**options)
    if "euclidean" not in declared(solver, "geometries"):
        raise Skipped("it serves no Euclidean path, and the kit knows no closed form of another")
    if own := {str(kind) for kind in solver.needs} - set(Prediction) - {"x0"}:
        raise Skipped(f"it needs {', '.join(sorted(own))}, which no Gaussian path gives")
    return solver


def adaptive(solver: Solver) -> bool:
    """Whether it chooses its own steps."""
    return hasattr(solver, "rtol") and hasattr(solver, "atol")


def paths_for(solver: Solver) -> dict[str, GaussianPath]:
    """The kit's paths, by name; of a table that is made for one path, as a calibrated one is, that alone.

    Raises:
        Skipped: If the kit has none that it serves.
    """
    predicts = getattr(solver, "predicts", ())
    served = {name: path for name, path in PATHS.items() if not any(made_for(solver, predicts, path))}
    if not served:
        raise Skipped(f"it is made for one path, and the kit's closed forms are on others: {' and '.join(PATHS)}")
    return served


def path_for(solver: Solver) -> GaussianPath:
    """The first of the kit's paths that it serves."""
    return next(iter(paths_for(solver).values()))


def _one_table(solver: Solver) -> bool:
    return getattr(solver, "steps", None) is not None or only_grid(solver) is not None


def only_grid(solver: Solver) -> Tensor | None:
    """The one grid of a solver that is made for it, as a calibrated table is; None for all others.

    Raises:
        Skipped: If that is for a path that the kit has not, or for runs that only `sample` makes.
    """
    own, steps = declared(solver, "grid"), getattr(solver, "steps", None)
    if own is None:
        return None
    path = path_for(solver)
    if steps is not None:
        try:
            times: Tensor = own.times(path, steps, field_for(solver, MIXTURE.model(path), path).span(solver.needs))
        except FMError as error:
            raise Skipped(f"its times are none of a run without guidance: {error}") from error
        if len(solver.plan(path, times).times) > len(times):  # type: ignore[attr-defined]
            raise Skipped("its last row is the data prediction that closes a run, which `solve` alone does not ask for")
        return times
    for steps in (24, *range(1, 65)):
        try:
            times = own.times(path, steps)
        except FMError:
            continue
        return None if steps == 24 else times
    return None


def free(subject: Subject, **options: Any) -> Solver:
    """The solver under examination, on any grid.

    Raises:
        Skipped: If it is made for one, on which no order can be measured.
    """
    solver = solver_of(subject, **options)
    if _one_table(solver):
        raise Skipped("it is made for one grid, and for one network: what it does on others says nothing")
    return solver


def times_for(solver: Solver, steps: int, low: float = FROM, high: float = TO) -> Tensor:
    """A grid for it: the ends alone where it chooses its own steps, its own where it serves no other."""
    if (own := only_grid(solver)) is not None:
        return own
    return torch.tensor([low, high], dtype=torch.float64) if adaptive(solver) else grid(steps, low, high)


def deterministic(solver: Solver) -> None:
    """Skips the check for a stochastic solver."""
    if declared(solver, "stochastic"):
        raise Skipped("it is stochastic")


def generator() -> torch.Generator:
    """A generator, always the same."""
    return make_generator(5)


@check_of("solver")
def declares_what_it_is(subject: Subject) -> None:
    """It has `needs`, kinds that a Gaussian path provides; an order ≥ 1; and ≥ 1 network calls a step."""
    solver = solver_of(subject)
    unknown = set(solver.needs) - set(Prediction)
    if unknown or not solver.needs:
        raise Failed(f"needs = {sorted(map(str, solver.needs))}: one or more of {sorted(map(str, Prediction))}")
    for name in ("order", "evals_per_step"):
        value = getattr(solver, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise Failed(f"{name} = {value!r}: a whole number ≥ 1")


@check_of("solver")
def rows_are_independent(subject: Subject) -> float:
    """A sample alone is the sample in its batch, noise included: no norm or error estimate runs over the batch."""
    solver, worst = solver_of(subject), 0.0
    path = path_for(solver)
    if adaptive(solver):
        raise Skipped("its steps are chosen for the whole batch")
    times = times_for(solver, 6)
    x = start(path, MIXTURE, float(times[0]), 5)
    x[2] *= 30  # an outlier, for what is shared by mistake to show
    whole = run(solver, path, MIXTURE, x, times, generator=BlockGenerator(3, 0, 5)).x
    for i in range(5):
        alone = run(solver, path, MIXTURE, x[i : i + 1], times, generator=BlockGenerator(3, i, i + 1)).x
        worst = max(worst, float(((alone - whole[i : i + 1]).abs() / (1 + whole[i : i + 1].abs())).max()))
    return at_most(worst, 1e-9, "a sample alone differs from the same in its batch by")


@check_of("solver")
def shapes_and_dtypes(subject: Subject) -> float:
    """States keep their shape and dtype, image-shaped and alone, and float32 ends near float64."""
    solver, worst = solver_of(subject), 0.0
    path = path_for(solver)
    for shape in ((1, 2), (3, 1, 2), (2, 1, 1, 2)):
        times = times_for(solver, 6)
        flat = start(path, MIXTURE, float(times[0]), shape[0])
        ends = {}
        for dtype in (torch.float64, torch.float32):
            x = flat.to(dtype).reshape(shape)
            end = solver.solve(
                field_for(solver, _Reshaped(path), path), x, times, generator=BlockGenerator(1, 0, shape[0])
            )
            if end.shape != x.shape or end.dtype != dtype:
                raise Failed(f"a state {shape} of {dtype} became {tuple(end.shape)} of {end.dtype}")
            ends[dtype] = end.double()
        if not declared(solver, "stochastic"):
            worst = max(worst, float((ends[torch.float32] - ends[torch.float64]).abs().max()))
    return at_most(worst, 1e-2 if adaptive(solver) else 1e-3, "float32 ends away from float64 by")


class _Reshaped:
    """The mixture's velocity for states of any shape of two numbers."""

    predicts = (Prediction.VELOCITY,)

    def __init__(self, path: Any) -> None:
        self.path = path

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        return MIXTURE.predict(self.path, Prediction.VELOCITY, x_t.flatten(1), t).reshape(x_t.shape)


@check_of("solver")
def reports_its_steps(subject: Subject) -> None:
    """`on_step` is told the first state and every grid point, in order, and the last one is what is returned."""
    solver = solver_of(subject)
    path, times = path_for(solver), times_for(solver, 7)
    x = start(path, MIXTURE, float(times[0]), 2)
    trace = run(solver, path, MIXTURE, x, times, generator=generator())
    if trace.times != times.tolist():
        raise Failed(f"on_step was told the times {[round(t, 6) for t in trace.times]}, the grid is {times.tolist()}")
    if not torch.equal(trace.states[0], x) or not torch.equal(trace.states[-1], trace.x):
        raise Failed("the first or the last state that on_step was told is not the run's")


@check_of("solver")
def any_prediction_will_do(subject: Subject) -> float:
    """The same field, arriving as data, noise, v or velocity, gives the same states."""
    solver = solver_of(subject)
    if own := getattr(solver, "predicts", ()):
        raise Skipped(f"it is made for networks that predict {' and '.join(own)} alone")
    (*_, path), times = paths_for(solver).values(), times_for(solver, 8)
    x, known = start(path, MIXTURE, float(times[0]), 4), ("velocity", "data", "noise", "v")
    spans = {kind: path.span(as_prediction(kind), solver.needs) for kind in known}
    ends = [
        run(solver, path, MIXTURE, x, times, predicts=kind, generator=generator()).x
        for kind, (low, high) in spans.items()
        if low <= float(times[0]) and float(times[-1]) <= high
    ]
    worst = max(float((end - ends[0]).abs().max()) for end in ends[1:])
    return at_most(worst, 1e-3 if adaptive(solver) else 1e-8, "states differ between predictions by")


@check_of("solver")
def network_calls(subject: Subject) -> float:
    """A further step costs `evals_per_step` network calls, and a whole run at most a start of 12 more."""
    solver, path = solver_of(subject), PATHS["linear"]
    if adaptive(solver):
        raise Skipped("its number of calls is its own choice")
    if _one_table(solver):
        raise Skipped("it is made for one grid")
    x = start(path, MIXTURE, FROM, 2)
    few, many = (run(solver, path, MIXTURE, x, grid(n), generator=generator()).calls for n in (12, 24))
    each, declared_each = (many - few) / 12, solver.evals_per_step
    if each != declared_each:
        raise Failed(f"a step costs {each:g} network calls; evals_per_step = {declared_each} is declared", each)
    spare = many - 24 * declared_each
    if not -declared_each <= spare <= 12:
        raise Failed(f"24 steps cost {many} network calls, {spare:+d} beside {24 * declared_each} declared", many)
    return each


@check_of("solver")
def asks_inside_and_at_its_own_times(subject: Subject) -> None:
    """The network is asked inside the interval alone, at float64 times, and at no grid point's time rounded."""
    solver = solver_of(subject)
    for name, path in paths_for(solver).items():
        times = times_for(solver, 9)
        trace = run(solver, path, MIXTURE, start(path, MIXTURE, float(times[0]), 2), times, generator=generator())
        asked = torch.stack(trace.asked)
        if asked.dtype != torch.float64:
            raise Failed(f"with float64 states the network was given times of {asked.dtype}")
        if not bool((asked == asked[:, :1]).all()):
            raise Failed("samples of one batch were asked at different times")
        low, high = float(asked.min()), float(asked.max())
        first, last = float(times[0]), float(times[-1])
        if low < first - _ROUNDING or high > last + _ROUNDING:
            raise Failed(f"on [{first}, {last}] ({name}) the network was asked from t = {low!r} to {high!r}")
        if not adaptive(solver):
            _require_exact(asked[:, 0], times)


_ROUNDING = 1e-12
"""Stages that are found through a noise level may be off by as much."""


def _require_exact(asked: Tensor, times: Tensor) -> None:
    distance, nearest = (asked[:, None] - times).abs().min(1)
    close = (distance > _ROUNDING) & (distance < 0.01 * float(times.diff().abs().min()))
    if bool(close.any()):
        i = int(close.nonzero()[0])
        raise Failed(
            f"the grid has t = {float(times[nearest[i]])!r}, the network was asked at {float(asked[i])!r}: rounded?",
            float(distance[i]),
        )
