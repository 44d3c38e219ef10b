"""The fields on which solvers and guidances are proven: exact ones of Gaussian mixtures, on two paths."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from attrs import field as attribute, frozen
from torch import Tensor

from fm_core.field import Field
from fm_core.gaussian import GaussianPath
from fm_core.mixture import GaussianMixture
from fm_core.prediction import Prediction
from fm_core.protocols import Solver
from fm_core.randomness import make_generator

__all__ = [
    "FROM",
    "GAUSSIAN",
    "MIXTURE",
    "PATHS",
    "TO",
    "Probe",
    "Trace",
    "Warped",
    "exact_states",
    "field_for",
    "grid",
    "power_of",
    "run",
    "settled",
    "start",
]

FROM, TO = 0.15, 0.85
"""The interval on which orders are measured, away from singular ends."""

MIXTURE = GaussianMixture([[1.2, -0.4], [-1.0, 0.8], [0.1, -1.1]], [0.5, 0.6, 0.4], [1.0, 2.0, 1.0])
GAUSSIAN = GaussianMixture([[0.8, -0.5]], [0.6])


@frozen
class _Straight:
    """α = t, σ = 1 − t."""

    def alpha(self, t: Tensor) -> Tensor:
        return t

    def sigma(self, t: Tensor) -> Tensor:
        return 1 - t

    def d_alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)


@frozen
class _Circle:
    """α = sin(πt/2), σ = cos(πt/2)."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sin(t * (math.pi / 2))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.cos(t * (math.pi / 2))

    def d_alpha(self, t: Tensor) -> Tensor:
        return self.sigma(t) * (math.pi / 2)

    def d_sigma(self, t: Tensor) -> Tensor:
        return -self.alpha(t) * (math.pi / 2)


@frozen
class Warped:
    """A schedule on another clock: at time t it is what `schedule` is at `t + strength·t·(1 − t)`."""

    schedule: Any
    strength: float = 0.5

    def alpha(self, t: Tensor) -> Tensor:
        return self.schedule.alpha(t + self.strength * t * (1 - t))  # type: ignore[no-any-return]

    def sigma(self, t: Tensor) -> Tensor:
        return self.schedule.sigma(t + self.strength * t * (1 - t))  # type: ignore[no-any-return]

    def own_time(self, t: Tensor) -> Tensor:
        """The time at which it is what `schedule` is at t."""
        k = self.strength
        return ((1 + k) - ((1 + k) ** 2 - 4 * k * t).sqrt()) / (2 * k)


PATHS = {"linear": GaussianPath(_Straight()), "trigonometric": GaussianPath(_Circle())}


class Probe:
    """A model that remembers at which times it was asked, each as the numbers it was given."""

    def __init__(self, model: Any) -> None:
        self.model, self.predicts = model, model.predicts
        self.times: list[Tensor] = []

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Any:
        self.times.append(t.detach().clone())
        return self.model(x_t, t) if cond is None else self.model(x_t, t, cond)


def field_for(solver: Solver, model: Any, path: GaussianPath) -> Field:
    """The field of a model on a path; what it answers is converted where the solver is made for another prediction."""
    kinds = tuple(getattr(solver, "predicts", ()))
    there = Field(model, path)
    return there if kinds in {(), tuple(model.predicts)} else Field(_Answering(there, kinds), path)


@frozen(eq=False)
class _Answering:
    """A field as a model that predicts other kinds."""

    field: Field
    predicts: tuple[Prediction, ...]

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Any:
        return self.field.predict(x_t, t, cond, *self.predicts)


def grid(steps: int, low: float = FROM, high: float = TO) -> Tensor:
    """A grid that is not uniform, so that a solver which takes it to be is found out: steps vary smoothly by 1 : 2."""
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    times = low + (high - low) * (u + u.square() / 2) / 1.5
    times[-1] = high
    return times


def settled(steps: int, low: float = FROM, high: float = TO) -> Tensor:
    """A grid whose first and last steps are so small that it does not matter of which order they are.

    `t = low + (high − low)·u³·(10 − 15u + 6u²)`: the first step is 10/N³ of the interval, and what a step of order 1
    errs there is of order N⁻⁶, when a history that has yet to be gathered lets a multistep method start so. Between the
    ends the steps vary smoothly, up to 1.9 times their mean.
    """
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    times = low + (high - low) * u**3 * (10 - 15 * u + 6 * u.square())
    times[-1] = high
    return times


def power_of(error: Callable[[int], float], sizes: Sequence[int], enough: float, rounding: float = 1e-10) -> float:
    """The power of 1/N by which an error falls: the largest found between one size N and the next.

    What is not yet asymptotic at the first sizes is at the last, so larger ones are tried until the power is enough.

    Args:
        error: The error of N steps.
        sizes: N, rising.
        enough: The power that is asked for.
        rounding: Errors below it are rounding: the power is infinite.
    """
    before, largest = error(sizes[0]), -math.inf
    for small, size in pairwise(sizes):
        now = error(size)
        if now <= rounding:
            return math.inf
        if math.isfinite(before) and math.isfinite(now):
            largest = max(largest, math.log(before / now, size / small))
        if largest >= enough:
            break
        before = now
    return largest


def start(path: GaussianPath, data: GaussianMixture, t: float, batch: int = 12) -> Tensor:
    """States of the path's marginal at t, shape `(batch, 2)`, float64."""
    generator = make_generator(11)
    x1 = data(batch, generator)
    x0 = torch.randn(x1.shape, generator=generator, dtype=torch.float64)
    return path.interpolate(x0, x1, torch.full((batch,), t, dtype=torch.float64)).x_t


def exact_states(path: GaussianPath, data: GaussianMixture, x: Tensor, times: Sequence[float]) -> list[Tensor]:
    """States of the probability flow at every time, from x at the first one, exact but for rounding.

    They are kept, since every solver is compared with the same ones.
    """
    key = (id(path), id(data), tuple(times), x.numpy().tobytes())
    if key not in _KEPT:
        states = [x]
        for t, s in pairwise(times):
            states.append(_flow(functools.partial(data.predict, path, Prediction.VELOCITY), states[-1], t, s))
        _KEPT[key] = path, data, states  # the first two hold the objects whose ids are in the key
    return _KEPT[key][2]


_KEPT: dict[Any, tuple[GaussianPath, GaussianMixture, list[Tensor]]] = {}

_DIVISIONS = (2, 4, 6, 8)
"""Substeps of the midpoint rules that are extrapolated: order 8, so steps of 1/40 err by less than 1e-13."""


def _flow(velocity: Callable[[Tensor, float], Tensor], x: Tensor, t: float, s: float) -> Tensor:
    """From t to s by Gragg's method (Hairer, Nørsett & Wanner 1993, II.9)."""
    steps = max(1, math.ceil(abs(s - t) * 40))
    for i in range(steps):
        x = _extrapolated(velocity, x, t + i * (s - t) / steps, (s - t) / steps)
    return x


def _extrapolated(velocity: Callable[[Tensor, float], Tensor], x: Tensor, t: float, length: float) -> Tensor:
    slope, table = velocity(x, t), []
    for n in _DIVISIONS:
        h = length / n
        before, now = x, x + h * slope
        for m in range(1, n):
            before, now = now, before + 2 * h * velocity(now, t + m * h)
        table.append((before + now + h * velocity(now, t + length)) / 2)
    for k in range(1, len(table)):
        for j in range(len(table) - 1, k - 1, -1):
            ratio = (_DIVISIONS[j] / _DIVISIONS[j - k]) ** 2
            table[j] = table[j] + (table[j] - table[j - 1]) / (ratio - 1)
    return table[-1]


@frozen(eq=False)
class Trace:
    """A run of a solver, watched.

    Args:
        x: The last state.
        times, states: What `on_step` was told.
        calls: Network calls.
        asked: Times at which the network was asked, one `(B,)` for each call.
    """

    x: Tensor
    times: list[float]
    states: list[Tensor]
    calls: int
    asked: list[Tensor] = attribute(repr=False)


def run(
    solver: Solver,
    path: GaussianPath,
    data: GaussianMixture,
    x: Tensor,
    times: Tensor,
    *,
    predicts: str = "velocity",
    generator: torch.Generator | None = None,
) -> Trace:
    """Carries x along the exact field of a mixture by a solver, and notes what it does."""
    probe = Probe(data.model(path, predicts))
    field = field_for(solver, probe, path)
    seen: list[tuple[float, Tensor]] = []
    with torch.no_grad():
        last = solver.solve(
            field, x.clone(), times, generator=generator, on_step=lambda t, y: seen.append((t, y.clone()))
        )
    return Trace(last, [t for t, _ in seen], [y for _, y in seen], field.calls, probe.times)
