"""Which solver to take for a pipeline and a budget, measured on the pipeline itself.

The reference is the pipeline's own fine solution, as fine as the contenders ask for: far nearer to the flow's end than
the best of them. Contenders start from the same source samples, seed by seed, and each gets the most steps that the
budget affords. The one of least median error is named, with the interval of its error and all those between which and
it no difference was found; of several that do the very same, the plainest.

    found = fm.recommend(pipe, (64, 2), budget="10nfe")
    pipe = found.pipeline                                  # with the solver and grid in it
    print(found)                                           # the evidence
"""

from __future__ import annotations

import contextlib
import math
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from attrs import evolve
from torch import Tensor

from fm_core.bench.affording import Afforded, affordable, fastest
from fm_core.bench.asked import names_of, seeds_of
from fm_core.bench.contenders import DEFAULT, FITTED, Contender, contenders
from fm_core.bench.pipeline_problem import MOST_STEPS, PipelineProblem, Refinement
from fm_core.bench.recommendation import Recommendation, Row, ranked
from fm_core.bench.records import Record
from fm_core.bench.report.cells import DOUBT
from fm_core.bench.running import run
from fm_core.bench.setting import Setting
from fm_core.bench.solvers import cells_of
from fm_core.bench.statistics import FEWEST
from fm_core.compat import Problem
from fm_core.drawing import whole_shape
from fm_core.errors import ArgumentError, BudgetError, CompatError, ConditionError, ShapeError, TimeError
from fm_core.fit.progress import someone_looks
from fm_core.pipeline import Pipeline
from fm_core.shapes import map_tensors, tensors_of
from fm_core.signatures import check_arguments

__all__ = ["Recommendation", "Row", "recommend"]

SAMPLES, IMAGES = 64, 16
"""Samples of a seed by which errors are judged; fewer of images, whose many coordinates make them vary less."""

SEEDS = 5
FEWEST_SEEDS = 2
FITTED_GAIN = 10
"""How much nearer a fitted table may come than the best of the others."""

_BUDGET = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(nfe|ms|s)\s*", re.IGNORECASE)


def recommend(
    pipeline: Pipeline,
    shape: int | Sequence[int],
    *,
    budget: str | int,
    cond: Any = None,
    only: Any = None,
    calibrate: bool = False,
    samples: int | None = None,
    seeds: int | Iterable[int] = SEEDS,
    progress: bool | None = None,
) -> Recommendation:
    """Measures solvers on a pipeline and names the best within a budget.

    Args:
        pipeline: A pipeline; its own solver and grid compete if it has them.
        shape: Shape `(B, *D)` of what is sampled at a time, or B where the network remembers D.
        budget: "10nfe" or 10: network calls of a sample. "50ms" or "0.2s": time of one batch of this shape on this
            machine, on as many threads as torch is set to.
        cond: Conditions as they are met in use, any pytree with the batch first; rows of it are drawn.
        only: Contenders, as `fm bench solvers` takes them, one or several; by default a sensible deterministic set.
        calibrate: Whether a table fitted to this pipeline (`fm.calibrate`) competes too: it takes longer.
        samples: Samples of a seed by which errors are judged; by default 64, of images 16.
        seeds: Replicates behind the intervals, how many or which.
        progress: Whether to show what is going on; None on a terminal.

    Raises:
        ArgumentError: For arguments of another type, no contender, or fewer than two seeds or samples.
        BudgetError: For a budget that is none, or that no solver can meet.
        CompatError: For a contender in `only` that adds noise, takes tolerances, or places times of its own.
        ShapeError: For a shape that is none, or not the network's; if D is not given and the network does not remember.
        ConditionError: For a condition that is missing or not wanted.
        DivergenceError: If the pipeline's own fine solution is not finite.
    """
    check_arguments(recommend, pipeline=pipeline, shape=shape, budget=budget, samples=samples)
    amount, unit = _parsed(budget)
    every = _replicates(seeds)
    whole = _whole(pipeline, shape)
    competing = _competing(pipeline, only, calibrate)
    problem = _problem(pipeline, whole, cond)
    count = _judged(samples, whole)
    with _told(progress) as say:
        say("a first reference")
        ladder = problem.refinements()
        first = next(ladder)  # what is wrong with the pipeline, its shape or its conditions is said here
        setting = Setting(problem, count, name="own")
        sampling = partial(_batch, setting, Setting(problem, whole[0], name="timed").source(0))
        say("how many calls a time affords")
        afforded = (
            affordable(competing, sampling, amount, MOST_STEPS)
            if unit == "s"
            else {one: Afforded(int(amount)) for one in competing}
        )
        found = _fine_enough(setting, problem, chain([first], ladder), afforded, say)
        judged = Setting(evolve(problem, refined=found), count, name="own")
    rows = ranked(afforded, _measured(judged, afforded, every, progress), budget)
    winner = next(one for one in afforded if one.name == rows[0].name)
    if unit == "nfe":
        with _told(progress) as say:
            say("times of the best")
            rows = _timed(rows, afforded, sampling)
    nfe = afforded[winner].calls
    return Recommendation(
        name=winner.name,
        nfe=nfe,
        pipeline=judged.fitted(nfe) if winner.fitted else winner.on(pipeline),
        budget=str(budget),
        rows=(*rows, *_unaffordable(competing, afforded, budget)),
        reference_error=found.error,
        reference_steps=found.steps,
        batch=whole[0],
        threads=torch.get_num_threads(),
    )


def _parsed(budget: str | int) -> tuple[float, str]:
    """Calls and "nfe", or seconds and "s"."""
    found = _BUDGET.fullmatch(budget if isinstance(budget, str) else f"{budget}nfe")
    if found is None:
        raise BudgetError(f"a budget is network calls or a time of one batch, '10nfe', '50ms', '0.2s'; got {budget!r}")
    amount, unit = float(found[1]), found[2].lower()
    if unit == "nfe" and (amount < 1 or amount != int(amount)):
        raise BudgetError(f"network calls are a whole number ≥ 1; got {budget!r}")
    if unit == "nfe" and amount > MOST_STEPS:
        raise BudgetError(
            f"{budget!r} is more than the reference takes, at most {MOST_STEPS} steps, so nothing could be told of "
            f"errors: with so many calls take any solver, or ask for at most {MOST_STEPS}nfe"
        )
    if amount <= 0:
        raise BudgetError(f"a time is more than nothing; got {budget!r}")
    return (amount / 1000, "s") if unit == "ms" else (amount, unit)


def _replicates(given: int | Iterable[int]) -> tuple[int, ...]:
    seeds = seeds_of(given, SEEDS)
    if len(seeds) < FEWEST_SEEDS:
        raise ArgumentError(
            f"one seed says nothing of chance: give at least {FEWEST_SEEDS}, {FEWEST} for intervals; got {given!r}"
        )
    return seeds


def _whole(pipeline: Pipeline, shape: int | Sequence[int]) -> tuple[int, ...]:
    whole = whole_shape(pipeline, shape)
    if len(whole) < 2 or min(whole) < 1:
        raise ShapeError(f"samples have the shape (B, *D) with B ≥ 1 and at least one dimension D; got {whole}")
    return whole


def _judged(samples: int | None, whole: tuple[int, ...]) -> int:
    """How many samples of a seed."""
    if samples is not None and samples < 2:
        raise ArgumentError(f"errors are judged by at least two samples of a seed; got samples={samples}")
    return samples or (IMAGES if len(whole) > 2 else SAMPLES)


def _problem(pipeline: Pipeline, whole: tuple[int, ...], cond: Any) -> PipelineProblem:
    if any(tensor.ndim == 0 or len(tensor) == 0 for tensor in tensors_of(cond)):
        raise ConditionError("cond has the batch first, at least one row: rows of it are drawn")
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


def _competing(pipeline: Pipeline, only: Any, calibrate: bool) -> tuple[Contender, ...]:
    given = contenders(names_of(only) if only is not None else (name for name in DEFAULT if name != FITTED))
    unfit = [problem for one in given if (problem := _unfit(one))]
    if only is not None and unfit:
        raise CompatError(unfit)
    found, own = [one for one in given if not _unfit(one)], pipeline.solver
    if only is None and own is not None:
        mine = Contender(own, pipeline.grid, name="its own: " + Contender(own, pipeline.grid).name)
        if not _unfit(mine):
            found.append(mine)
    found += contenders([FITTED]) if calibrate else ()
    names = [one.name for one in found]
    if not found or len(set(names)) < len(names):
        raise ArgumentError(f"only names at least one contender, and each once; got {names}")
    return tuple(found)


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


def _batch(setting: Setting, draws: tuple[Tensor, Any], contender: Contender, nfe: int) -> Callable[[], Any]:
    """What carries these source samples to their ends."""
    pipeline = setting.pipeline_with(contender, nfe)
    return partial(pipeline.sample, x0=draws[0], cond=draws[1], nfe=nfe, seed=0, throw=False)


def _fine_enough(
    setting: Setting,
    problem: PipelineProblem,
    ladder: Iterable[Refinement],
    afforded: Mapping[Contender, Afforded],
    say: Callable[[str], None],
) -> Refinement:
    """The first of ever finer references that the best contender is far further from than it may be wrong by."""
    draws = problem.probe()
    rivals = []
    for contender, spent in afforded.items():
        if not contender.fitted:
            say(f"{contender.name} on a few samples")
            with contextlib.suppress(BudgetError, CompatError, TimeError):
                rivals.append(_batch(setting, draws, contender, spent.calls)().x.to(torch.float64))
    margin = DOUBT * (FITTED_GAIN if any(one.fitted for one in afforded) else 1)
    for found in ladder:
        errors = [float((x - found.ends).flatten(1).square().mean(1).sqrt().median()) for x in rivals]
        say(f"a reference in {found.steps} steps, right to {found.error:.2g}")
        if found.error * margin <= min((one for one in errors if math.isfinite(one)), default=math.inf):
            break
    return found


def _measured(
    setting: Setting, afforded: Mapping[Contender, Afforded], seeds: Iterable[int], progress: bool | None
) -> dict[str, list[Record]]:
    """The records of each contender, by its name."""
    todo = [
        cell
        for seed in seeds
        for contender, spent in afforded.items()
        for cell in cells_of(setting, contender, [{"nfe": spent.calls}], seed, only_errors=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        results = run(todo, Path(folder), command="recommend", title="recommend", progress=progress)
    found: dict[str, list[Record]] = {one.name: [] for one in afforded}
    for record in results.records:
        found[record.contender].append(record)
    return found


def _timed(
    rows: tuple[Row, ...],
    afforded: Mapping[Contender, Afforded],
    sampling: Callable[[Contender, int], Callable[[], object]],
) -> tuple[Row, ...]:
    """The rows with the times of those that may be taken."""
    wanted = {row.name for row in rows if row.verdict in ("best", "the same", "no difference", "untold")}
    runs = {one.name: sampling(one, spent.calls) for one, spent in afforded.items() if one.name in wanted}
    took = fastest(runs)
    return tuple(evolve(row, seconds=took.get(row.name)) for row in rows)


def _unaffordable(
    competing: Iterable[Contender], afforded: Mapping[Contender, Afforded], budget: str | int
) -> Iterator[Row]:
    for one in competing:
        if one not in afforded:
            yield Row(one.name, 0, None, f"not within {budget}, or not on this pipeline with so few calls")


@contextlib.contextmanager
def _told(progress: bool | None) -> Iterator[Callable[[str], None]]:
    """Says on stderr what is going on, where someone looks."""
    if not (someone_looks() if progress is None else progress):
        yield lambda now: None
        return
    from rich.console import Console

    with Console(stderr=True).status("recommend") as status:
        yield lambda now: status.update(f"recommend: {now}")
