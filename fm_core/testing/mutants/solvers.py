"""Solvers that break the contract of a run, with one defect each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fm_core.plan import Plan, Row
from fm_core.prediction import Prediction
from fm_core.testing.mutants.plans import Loop, ddim, euler, heun, solver
from fm_core.testing.mutants.planting import Changed, plant

__all__ = ["STATEFUL", "loop", "velocity", "wrapped"]

VELOCITY = Prediction.VELOCITY


def loop(change: Any, **declared: Any) -> Any:
    """Euler's loop with the velocity `change(field, x, t, s, generator)`."""
    return lambda: Loop(lambda field, x, t, s, g: x + (s - t) * change(field, x, t, s, g), **declared)


def velocity(field: Any, x: Tensor, t: Any) -> Tensor:
    """The field's velocity at states x, of their shape `(B, *D)`, and a scalar time."""
    u: Tensor = field.predict(x, t, None, VELOCITY)
    return u


def wrapped(around: Any, **declared: Any) -> Any:
    """Euler's table, solved by `around(solve, field, x, times, **given)`."""

    def make() -> Any:
        table = solver(euler)
        return Changed(table, solve=lambda *a, **given: around(table.solve, *a, **given), **declared)

    return make


def _declaring(**what: Any) -> Any:
    return lambda: Changed(solver(euler), **what)


plant("solver", "declares_what_it_is", "order 0", _declaring(order=0))
plant(
    "solver",
    "declares_what_it_is",
    "needs 'x0', which means data in one paper and noise in the next",
    _declaring(needs=frozenset({"x0"})),
)
plant("solver", "declares_what_it_is", "1.5 evaluations per step", _declaring(evals_per_step=1.5))
plant(
    "solver",
    "rows_are_independent",
    "velocities limited by their norm over the whole batch",
    loop(
        lambda field, x, t, s, g: velocity(field, x, t) / max(1.0, float(velocity(field, x, t).norm()) / 2),
        evals_per_step=2,
    ),
    found="error norms of torchdiffeq run over the batch",
)
plant(
    "solver",
    "rows_are_independent",
    "the mean of the batch taken off",
    loop(lambda field, x, t, s, g: velocity(field, x, t) - 0.1 * x.mean(0)),
)
plant(
    "solver",
    "shapes_and_dtypes",
    "states raised to float64",
    wrapped(lambda solve, f, x, *a, **k: solve(f, x.double(), *a, **k)),
)
plant("solver", "shapes_and_dtypes", "states come back flat", wrapped(lambda solve, *a, **k: solve(*a, **k).flatten(1)))
plant("solver", "network_calls", "one call a step declared, two made", lambda: solver(heun, order=2))
plant(
    "solver",
    "network_calls",
    "twenty calls before the first step",
    wrapped(
        lambda solve, f, x, times, **k: (
            [f.predict(x, float(times[0]), None, VELOCITY) for _ in range(20)] and solve(f, x, times, **k)
        )
    ),
)


def _rounded(times: Tensor) -> Tensor:
    return (times * 1000).floor() / 1000


plant(
    "solver",
    "asks_inside_and_at_its_own_times",
    "times rounded to whole steps of 1000: 899.64 → 899",
    loop(lambda field, x, t, s, g: velocity(field, x, int(t * 1000) / 1000 if t > 0.151 else t)),
    found="diffusers, DPM-Solver multistep with flow sigmas",
)
plant(
    "solver",
    "asks_inside_and_at_its_own_times",
    "times in float32",
    loop(lambda field, x, t, s, g: velocity(field, x, torch.full((len(x),), t, dtype=torch.float32))),
)
plant(
    "solver",
    "asks_inside_and_at_its_own_times",
    "asked a step beyond the end",
    loop(lambda field, x, t, s, g: velocity(field, x, s + (s - t))),
)
plant(
    "solver",
    "reports_its_steps",
    "the first state not told",
    wrapped(
        lambda solve, f, x, times, *, on_step, **k: solve(
            f, x, times, on_step=lambda t, y: on_step(t, y) if t > times[0] else None, **k
        )
    ),
)
plant(
    "solver",
    "reports_its_steps",
    "stages told as grid points",
    lambda: solver(lambda p, t: heun(p, t, stages_accepted=True), order=2, evals_per_step=2),
)
plant(
    "solver",
    "any_prediction_will_do",
    "what the network returns taken for the velocity",
    loop(lambda field, x, t, s, g: field.model(x, torch.full((len(x),), t, dtype=torch.float64))),
)
plant(
    "solver",
    "any_prediction_will_do",
    "predictions converted at the next time",
    loop(
        lambda field, x, t, s, g: field.path.convert(
            field.predict(x, t, None, field.native),
            x,
            torch.full((len(x),), s, dtype=torch.float64),
            src=field.native,
            dst=VELOCITY,
        )
    ),
)


STATEFUL = "diffusers, schedulers (issues 1606, 3672, 6631, 9362, 12771)"


class _Stateful:
    """Euler's plan, whose first step is longer the second time."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, path: Any, times: Tensor) -> Plan:
        self.runs += 1
        plan = euler(path, times)
        first = plan.rows[0]
        changed = Row(first.t, first.states, tuple((j, w / self.runs) for j, w in first.predictions))
        return Plan(plan.space, plan.t0, (changed, *plan.rows[1:]))


plant("solver", "plans_are_values", "a history that is not reset", lambda: solver(_Stateful()), found=STATEFUL)
plant("solver", "plans_are_values", "grid points rounded to 1/1000", lambda: solver(lambda p, t: euler(p, _rounded(t))))
_ETA = "three meanings of η: .1875, .375, .4375 where σ²/τ is .75"
plant(
    "solver",
    "eta_is_the_papers",
    "η as a share of the variance",
    lambda eta=0.5: ddim(eta, noise=lambda eta, root, sigma: eta**0.5 * root),
    found=_ETA,
)
plant(
    "solver",
    "eta_is_the_papers",
    "η as a share of σ",
    lambda eta=0.5: ddim(eta, noise=lambda eta, root, sigma: eta * sigma),
    found=_ETA,
)
