"""The choice of a table and a grid, and the solver that makes it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, final

import torch
from attrs import field as attribute, frozen
from torch import Tensor

from fm_core import Field, Plan, Prediction, ProbabilityPath, TableSolver, TimeGrid, build
from fm_core.executing import execute
from fm_core.gaussian import check_times
from fm_core.protocols import OnStep, declared

__all__ = ["Auto", "AutoGrid", "auto", "choice"]

Part = tuple[str, tuple[tuple[str, Any], ...]]
"""A registry name with its options."""

BEND = 1e-3
"""How far α or σ may stray from a straight line at t = 1/2."""

MANY = 10**9


def _interpolating(variable: str, order: int) -> Part:
    """The data interpolated in a variable, with a corrector of one order more."""
    options = (("space", "data"), ("variable", variable), ("order", order), ("corrector", order + 1))
    return "multistep", options


_RULES: dict[str, tuple[tuple[int, Part, Part], ...]] = {
    "straight": (
        (8, ("adams_pc", (("order", 4),)), ("power", (("exponent", 1.25),))),
        (14, ("adams_pc", (("order", 4),)), ("beta", (("alpha", 0.8), ("beta", 0.85)))),
        (MANY, ("adams_pc", (("order", 5),)), ("beta", (("alpha", 0.8), ("beta", 0.8)))),
    ),
    "curved": (
        (7, ("adams_pc", (("order", 4),)), ("power", (("exponent", 2.0),))),
        (MANY, ("adams_pc", (("order", 5),)), ("power", (("exponent", 2.0),))),
    ),
    "diffusion": (
        (6, _interpolating("t", 2), ("log_snr", (("sigma_min", 0.02), ("sigma_max", 20.0)))),
        (30, _interpolating("t", 3), ("log_snr", (("sigma_min", 0.02), ("sigma_max", 20.0)))),
        (MANY, _interpolating("t", 3), ("power", (("exponent", 2.0),))),
    ),
    "closing": (
        (24, _interpolating("sigma", 2), ("log_snr", ())),
        (MANY, ("unipc", (("order", 3),)), ("shift", (("shift", 0.5),))),
    ),
}
"""By family of paths: up to how many steps, the table, the grid."""


def choice(path: ProbabilityPath, steps: int) -> tuple[TableSolver, TimeGrid]:
    """The table and the grid for a path and a number of steps."""
    solver, grid = next((solver, grid) for most, solver, grid in _RULES[_family(path)] if steps <= most)
    return _built("solver", *solver), _built("grid", *grid)


def _family(path: ProbabilityPath) -> str:
    """What decides about tables: where the velocity ends, and whether α and σ are straight lines."""
    if declared(path, "closing"):
        return "closing"
    if hasattr(path, "span") and path.span(Prediction.VELOCITY, (Prediction.VELOCITY,))[1] < 1.0:
        return "diffusion"
    levels = [getattr(path, name) for name in ("alpha", "sigma") if hasattr(path, name)]
    t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    bends = [level(t)[1] - level(t)[[0, 2]].mean() for level in levels]
    return "curved" if any(abs(float(bend)) > BEND for bend in bends) else "straight"


@functools.cache
def _built(kind: str, name: str, options: tuple[tuple[str, Any], ...]) -> Any:
    return build(kind, name, **dict(options))


@final
@frozen
class AutoGrid:
    """The grid that goes with the table."""

    def times(self, path: ProbabilityPath, steps: int, span: tuple[float, float] = (0.0, 1.0)) -> Tensor:
        """Grid of `steps` steps over `span`, `(steps + 1,)`, float64."""
        return choice(path, steps)[1].times(path, steps, span)


@final
@frozen(eq=False)
class Auto:
    """A table solver that is chosen when path and number of steps are known."""

    grid: TimeGrid = attribute(factory=AutoGrid)

    needs = frozenset({Prediction.DATA})
    space = Prediction.DATA
    order = 2
    evals_per_step = 1
    stochastic = False
    starts_blind = False

    def plan(self, path: ProbabilityPath, times: Tensor) -> Plan:
        """The table on a grid, in its own space."""
        return choice(path, len(times) - 1)[0].plan(path, times)

    def prepare(self, field: Field, times: Tensor, *, final: bool = False) -> Plan:
        """The table on a grid in the field's native space; `final` adds the closing data prediction."""
        return choice(field.path, len(times) - 1)[0].prepare(field, times, final=final)

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
        """Carries states x `(B, *D)` along the field from `times[0]` to `times[-1]`."""
        plan = self.prepare(field, check_times(times))
        return execute(plan, field, x, cond=cond, generator=generator, on_step=on_step)

    def steps_for(self, field: Field, nfe: int, times: Callable[[int], Tensor], *, final: bool = False) -> int:
        """The most steps within so many network calls: as many, less the closing prediction."""
        steps = nfe - final
        if steps < 1:
            return choice(field.path, 1)[0].steps_for(field, nfe, times, final=final)
        return steps


def auto() -> Auto:
    """The solver that chooses its table and grid by the path and the number of steps."""
    return Auto()
