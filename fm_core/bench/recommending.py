"""Which solver to take for a pipeline and a budget, measured on the pipeline itself.

The reference is the pipeline's own fine solution; contenders start from the same source samples, seed by seed, and each
gets the most steps that the budget affords. The one of least median error is named, with the interval of its error and
all those between which and it no difference was found.

    found = fm.recommend(pipe, (64, 2), budget="10nfe")
    pipe = found.pipeline                                  # with the solver and grid in it
    print(found)                                           # the evidence
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from fm_core.bench.contenders import DEFAULT, FITTED, Contender, contenders
from fm_core.bench.pipeline_problem import PipelineProblem
from fm_core.bench.report.cells import Cell as Measured, cells
from fm_core.bench.report.choosing import usable
from fm_core.bench.running import run
from fm_core.bench.setting import Setting
from fm_core.bench.solvers import cells_of
from fm_core.bench.statistics import Estimate, differ
from fm_core.compat import Problem
from fm_core.drawing import whole_shape
from fm_core.errors import BudgetError, CompatError, TimeError
from fm_core.pipeline import Pipeline
from fm_core.shapes import map_tensors

__all__ = ["Recommendation", "Row", "recommend"]

ERROR = "error_median"
LEAST_SAMPLES = 64
"""Samples of a seed by which errors are judged, if fewer are drawn at a time."""

SEEDS = 5
PROBES = (5, 25)
"""Budgets at which contenders are timed, to tell how many calls a time affords."""

TIMINGS = 9
_BUDGET = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(nfe|ms|s)\s*", re.IGNORECASE)


@frozen
class Row:
    """A contender within the budget.

    Args:
        name: Solver and grid as one types them.
        nfe: Network calls spent on a sample.
        error: Median over the samples of the end-point error.
        verdict: "best", "no difference" from the best, "worse", or why it did not run.
    """

    name: str
    nfe: int
    error: Estimate | None
    verdict: str


@frozen(eq=False)
class Recommendation:
    """A solver for a pipeline and a budget, with the evidence.

    Args:
        name: The solver and its grid as one types them.
        nfe: The budget to sample with: `pipeline.sample(…, nfe=nfe)`.
        pipeline: The pipeline with them in it.
        budget: What was asked for.
        rows: All contenders, the least error first.
        reference_error: How far two references differ: errors near it say nothing.
    """

    name: str
    nfe: int
    pipeline: Pipeline = field(repr=False)
    budget: str
    rows: tuple[Row, ...] = field(repr=False)
    reference_error: float

    @property
    def level(self) -> tuple[str, ...]:
        """Contenders between which and this one no difference was found."""
        return tuple(row.name for row in self.rows if row.verdict == "no difference")

    def __str__(self) -> str:
        ran = [row for row in self.rows if row.error is not None]
        width = max(len(row.name) for row in ran)
        lines = [f"take {self.name}, nfe={self.nfe} (budget {self.budget})"]
        lines += [f"  {row.name:<{width}}  nfe {row.nfe:>3}  error {row.error}  {row.verdict}" for row in ran]
        return "\n".join(lines)


def recommend(
    pipeline: Pipeline,
    shape: int | Sequence[int],
    *,
    budget: str | int,
    cond: Any = None,
    only: Iterable[Any] | None = None,
    calibrate: bool = False,
    seeds: int = SEEDS,
    progress: bool | None = None,
) -> Recommendation:
    """Measures solvers on a pipeline and names the best within a budget.

    Args:
        pipeline: A pipeline; its own solver and grid compete if it has them.
        shape: Shape `(B, *D)` of what is sampled at a time, or B where the network remembers D.
        budget: "10nfe" or 10: network calls of a sample. "50ms" or "0.2s": time of one batch of this shape on this
            machine.
        cond: Conditions as they are met in use, any pytree with the batch first; rows of it are drawn.
        only: Contenders, as `fm bench solvers` takes them; by default a sensible set of deterministic ones.
        calibrate: Whether a table fitted to this pipeline (`fm.calibrate`) competes too: it takes longer.
        seeds: Replicates behind the intervals.
        progress: Whether to show a bar; None on a terminal.

    Raises:
        BudgetError: For a budget that is none, or that no solver can meet.
        CompatError: For a contender in `only` that adds noise, takes tolerances, or places times of its own.
        ShapeError: If D is not given and the network does not remember it.
    """
    amount, unit = _parsed(budget)
    whole = whole_shape(pipeline, shape)
    problem = _problem(pipeline, whole, cond)
    setting = Setting(problem, max(LEAST_SAMPLES, whole[0]), name="own")
    competing = _competing(pipeline, only, calibrate)
    nfe_of = (
        _calls_within(setting, competing, whole[0], amount) if unit == "s" else dict.fromkeys(competing, int(amount))
    )
    todo = [
        cell
        for seed in range(seeds)
        for contender, nfe in nfe_of.items()
        for cell in cells_of(setting, contender, [{"nfe": nfe}], seed)
    ]
    with tempfile.TemporaryDirectory() as folder:
        results = run(todo, Path(folder), command="recommend", title="recommend", rounds=0, progress=progress)
    measured = {cell.contender: cell for cell in cells(results.records)}
    ranked = sorted(usable(measured.values(), ERROR), key=lambda cell: cell.estimates[ERROR].median)
    if not ranked:
        why = "; ".join(dict.fromkeys(cell.why for cell in measured.values())) or "nothing is that fast"
        raise BudgetError(f"no solver runs on this pipeline within {budget}: {why}")
    winner = next(c for c in nfe_of if c.name == ranked[0].contender)
    nfe = nfe_of[winner]
    return Recommendation(
        name=winner.name,
        nfe=nfe,
        pipeline=setting.fitted(nfe) if winner.fitted else winner.on(pipeline),
        budget=str(budget),
        rows=tuple(_rows(ranked, measured.values())),
        reference_error=problem.reference_error,
    )


def _parsed(budget: str | int) -> tuple[float, str]:
    """Calls and "nfe", or seconds and "s"."""
    found = _BUDGET.fullmatch(budget if isinstance(budget, str) else f"{budget}nfe")
    if found is None:
        raise BudgetError(f"a budget is network calls or a time of one batch, '10nfe', '50ms', '0.2s'; got {budget!r}")
    amount, unit = float(found[1]), found[2].lower()
    if unit == "nfe" and (amount < 1 or amount != int(amount)):
        raise BudgetError(f"network calls are a whole number ≥ 1; got {budget!r}")
    return (amount / 1000, "s") if unit == "ms" else (amount, unit)


def _problem(pipeline: Pipeline, whole: tuple[int, ...], cond: Any) -> PipelineProblem:
    return PipelineProblem(
        title="this pipeline",
        pipeline=pipeline,
        event_shape=whole[1:],
        conditions=None if cond is None else partial(_drawn, cond),
    )


def _drawn(cond: Any, n: int, generator: torch.Generator) -> Any:
    def rows(tensor: Tensor) -> Tensor:
        return tensor[index.to(tensor.device) % len(tensor)]

    index = torch.randint(2**31, (n,), generator=generator)
    return map_tensors(rows, cond)


def _competing(pipeline: Pipeline, only: Iterable[Any] | None, calibrate: bool) -> tuple[Contender, ...]:
    given = contenders(only if only is not None else (name for name in DEFAULT if name != FITTED))
    unfit = [problem for one in given if (problem := _unfit(one))]
    if only is not None and unfit:
        raise CompatError(unfit)
    found, own = [one for one in given if not _unfit(one)], pipeline.solver
    if only is None and own is not None:
        mine = Contender(own, pipeline.grid, name="its own: " + Contender(own, pipeline.grid).name)
        if not _unfit(mine):
            found.append(mine)
    return (*found, *(contenders([FITTED]) if calibrate else ()))


def _unfit(one: Contender) -> Problem | None:
    """Why a contender cannot be recommended."""
    why = {
        "it adds noise, so its samples do not end where a reference takes the same start": one.stochastic,
        "it takes tolerances in place of a budget of network calls": one.adaptive,
        "it is another library's and places times of its own, so no pipeline can hold it": one.whole,
    }
    for reason, holds in why.items():
        if holds:
            return Problem(f"{one.name} cannot be recommended", reason, "compare it by fm bench solvers --pipeline DIR")
    return None


def _calls_within(setting: Setting, competing: Iterable[Contender], batch: int, seconds: float) -> dict[Contender, int]:
    """How many calls of each contender a time affords, by a line through two timed budgets, all in turn."""
    timed = Setting(setting.given, batch, name="timed")
    draws = timed.source(0)
    runs: dict[tuple[Contender, int], Callable[[], Any]] = {}
    for contender in competing:
        for nfe in PROBES:
            try:
                pipeline = timed.fitted(nfe) if contender.fitted else contender.on(setting.problem.pipeline)
                go: Callable[[], Any] = partial(
                    pipeline.sample, x0=draws[0], cond=draws[1], nfe=nfe, seed=0, throw=False
                )
                go()
            except (BudgetError, CompatError, TimeError):
                continue
            runs[contender, nfe] = go
    times: dict[tuple[Contender, int], list[float]] = {key: [] for key in runs}
    for _ in range(TIMINGS):
        for key, go in runs.items():
            began = time.perf_counter()
            go()
            times[key].append(time.perf_counter() - began)
    best = {key: min(own) for key, own in times.items()}  # what else runs on the machine only adds
    found: dict[Contender, int] = {}
    for contender in competing:
        if all((contender, nfe) in best for nfe in PROBES):
            few, many = (best[contender, nfe] for nfe in PROBES)
            each = max((many - few) / (PROBES[1] - PROBES[0]), many / PROBES[1] / 10)
            calls = int(PROBES[0] + (seconds - few) / each)
            if calls >= 1:
                found[contender] = calls
    return found


def _rows(ranked: list[Measured], everything: Iterable[Measured]) -> Iterable[Row]:
    best = ranked[0].estimates[ERROR]
    for cell in ranked:
        error = cell.estimates[ERROR]
        apart = differ(best, error)
        verdict = "best" if cell is ranked[0] else "worse" if apart else "no difference"
        yield Row(cell.contender, int(cell.middle("nfe") or 0), error, verdict)
    for cell in everything:
        if cell not in ranked:
            yield Row(cell.contender, 0, None, f"{cell.status}: {cell.why}")
