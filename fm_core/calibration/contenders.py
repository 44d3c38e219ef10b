"""The uncalibrated tables that a calibrated one begins from and must beat, by their registry names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from fm_core.calibration.comparing import distances
from fm_core.calibration.guided import other_guidance
from fm_core.calibration.pilot import asked_span, closes
from fm_core.calibration.table import Table, table_of
from fm_core.course import Budget, course_of, solver_of
from fm_core.errors import BudgetError, CompatError, PluginError, PredictionError, TimeError, UnknownNameError
from fm_core.field import Field
from fm_core.naming import label
from fm_core.pipeline import Pipeline
from fm_core.straight import clock, straight_space
from fm_core.table_solver import TableSolver

__all__ = ["Contender", "contenders"]

Part = dict[str, Any]


def _straight(order: int) -> Part:
    return {"name": "straight", "solver": {"kind": "solver", "name": "adams_pc", "order": order}}


def _grid(name: str, **options: float) -> Part:
    return {"name": "straight", "grid": {"kind": "grid", "name": name, **options}}


_TABLES: tuple[tuple[Part, tuple[Part | None, ...]], ...] = (
    ({"name": "auto"}, (None,)),
    (_straight(2), (_grid("power", exponent=1.1), _grid("beta", alpha=0.6, beta=0.8))),
    (_straight(3), (_grid("power", exponent=1.25), _grid("beta", alpha=0.6, beta=0.6))),
    (_straight(4), (*(_grid("power", exponent=p) for p in (1.25, 1.5, 2.0)), _grid("beta", alpha=0.8, beta=0.8))),
    (_straight(5), (_grid("power", exponent=1.5), _grid("beta", alpha=0.8, beta=0.8))),
    (
        {"name": "multistep", "space": "data", "variable": "sigma", "order": 2, "corrector": 3},
        ({"name": "log_snr"}, {"name": "log_snr", "sigma_min": 0.02, "sigma_max": 20.0}),
    ),
    ({"name": "dpm_solver_pp", "order": 3}, ({"name": "log_snr"}, {"name": "karras"})),
    ({"name": "unipc", "order": 3}, ({"name": "log_snr"}, {"name": "shift", "shift": 0.5})),
    ({"name": "heun"}, (None,)),
)
"""Solvers, each with its grids."""


@frozen(eq=False)
class Contender:
    """An uncalibrated solver and grid, with the samples it draws.

    Args:
        title: Its solver and grid as they are typed, solver@grid.
        pipeline: The pipeline with them.
        ends: Where it takes the pilot, `(B, E)`, float64.
        times: Its times; with t = 1 at the end where the data prediction closes.
    """

    title: str
    pipeline: Pipeline
    ends: Tensor
    times: Tensor

    def errors(self, ends: Tensor) -> Tensor:
        """The root-mean-square error of every trajectory, `(B,)`, given its true end `(B, E)`."""
        return distances(self.ends, ends)

    def again(self, nfe: int, x0: Tensor, cond: Any, chunk: int) -> Contender:
        """The same table on other source samples."""
        return _run(self.pipeline, nfe, x0, cond, chunk)

    def table(self) -> Table | None:
        """The table that it is, if it is of the family."""
        solver, path = self.pipeline.solver, self.pipeline.path
        if not isinstance(solver, TableSolver):
            return None
        closing = closes(self.pipeline, solver.space_on(path))
        if closing != closes(self.pipeline, straight_space(path)):
            return None
        plan = solver.plan(path, self.times[:-1] if closing else self.times)
        if not closing:
            return table_of(plan, path)
        high = torch.tensor(asked_span(self.pipeline)[1], dtype=torch.float64)
        return table_of(plan.denoised(path), path, float(clock(path, high)[0]))


def contenders(pipeline: Pipeline, nfe: int, x0: Tensor, cond: Any, chunk: int | None = None) -> Iterator[Contender]:
    """All that can be run on this pipeline with so many calls.

    Args:
        pipeline: Without a codec.
        nfe: Network calls.
        x0: Source samples, `(B, *D)`.
        cond: Their condition.
        chunk: The most states in one call of the network; all of them by default.
    """
    yield from (_run(piece, nfe, x0, cond, chunk) for piece in _pipelines(pipeline) if _plans(piece, nfe))


def _plans(pipeline: Pipeline, nfe: int) -> bool:
    """Whether path, network and budget allow a run; what then goes wrong in one is the caller's to hear of."""
    field = Field(pipeline.model, pipeline.path, pipeline.guidance)
    with contextlib.suppress(BudgetError, CompatError, PredictionError, TimeError):
        course_of(pipeline, solver_of(pipeline, None, None), field, Budget(None, nfe, None, None, "data"))
        return True
    return False


def _run(pipeline: Pipeline, nfe: int, x0: Tensor, cond: Any, chunk: int | None) -> Contender:
    drawn = pipeline.sample(x0=x0, cond=cond, nfe=nfe, seed=0, throw=False, chunk=chunk)
    title = "@".join(label(part) for part in (pipeline.solver, pipeline.grid) if part is not None)
    return Contender(title, pipeline, drawn.x.flatten(1).to(torch.float64), drawn.times)


def _pipelines(pipeline: Pipeline) -> Iterator[Pipeline]:
    solver = pipeline.solver
    elsewhere = other_guidance(getattr(solver, "provenance", {}), pipeline.guidance)
    stochastic, adaptive = getattr(solver, "stochastic", False), hasattr(solver, "rtol")
    if solver is not None and not (stochastic or adaptive or elsewhere):
        yield pipeline
    for part, grids in _TABLES:
        for grid in grids:
            with contextlib.suppress(CompatError, UnknownNameError, PluginError):  # a path may not allow it
                yield pipeline.replace(solver=part, grid=grid)
