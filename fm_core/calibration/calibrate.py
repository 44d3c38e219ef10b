"""`calibrate`: a pipeline, a pilot and a budget make a pipeline whose solver is fitted to its own field."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from attrs import evolve
from torch import Tensor

from fm_core import registry
from fm_core.building import name_of
from fm_core.calibration.asking import (
    at_least,
    predictions_of,
    require_determined,
    require_gaussian,
    require_one_field,
    source_of,
)
from fm_core.calibration.comparing import said, summary
from fm_core.calibration.contenders import contenders
from fm_core.calibration.guided import guidance_of
from fm_core.calibration.pilot import (
    Pilot,
    asked_times,
    closes,
    fine_ends,
    needs_apart,
    reference_ends,
    source_states,
    states_of,
)
from fm_core.calibration.progress import Tell, shown
from fm_core.calibration.table import free_numbers
from fm_core.calibration.trial import Trial, trial
from fm_core.errors import BudgetError
from fm_core.evaluating import evaluating
from fm_core.field import schedule_fingerprint
from fm_core.pipeline import Pipeline
from fm_core.randomness import check_seed, spawn_seed
from fm_core.shapes import map_tensors
from fm_core.signatures import check_arguments
from fm_core.straight import straight_space, times_of_clock

__all__ = ["calibrate"]


def calibrate(
    pipeline: Pipeline,
    shape: int | Sequence[int] | None = None,
    *,
    nfe: int,
    x0: Tensor | None = None,
    cond: Any = None,
    seed: int = 0,
    iterations: int = 40,
    chunk: int | None = None,
    progress: bool | None = None,
) -> Pipeline:
    """The pipeline with a solver fitted to its own field, guidance included, for one budget of network calls.

    Times and weights of a table are chosen such that a pilot's trajectories end where a fine reference takes them. As
    many of other noise say when to stop. If on as many of yet other noise the table is no better than the best
    uncalibrated one, that one is returned, with a warning.

    Args:
        pipeline: What is calibrated; it stays as it is.
        shape: Shape `(B, *D)` of the pilot, or B where the network remembers D.
        nfe: Network calls of one sample, as in `sample`.
        x0: Source samples `(B, *D)` of the pilot, unscaled, in place of drawn ones.
        cond: Condition of the pilot, any pytree with the batch first; it should vary as it will in use.
        seed: Seed of the pilot; the noise of the check follows from it.
        iterations: The most Gauss–Newton steps.
        chunk: The most states in one call of the network.
        progress: Whether to show a bar; None shows it on a terminal, outside CI and tests.

    Returns:
        The pipeline with the solver "calibrated": it has a grid of its own, saves as numbers, samples with this `nfe`
        alone, and `solver.provenance` says what it was fitted to and how well.

    Raises:
        ArgumentError: For arguments of another type than these.
        BudgetError: For a budget that affords no step, `iterations` < 0 or `chunk` < 1.
        ShapeError: For a shape, or x0, that cannot be states.
        DataError: For a pilot with fewer numbers than the table, or without finite ends.
        CompatError: For a path without α and σ, and for a guidance that depends on how long steps are.
        Exception: What sampling from the pilot raises, the network's own errors among them.
    """
    check_arguments(
        calibrate,
        pipeline=pipeline,
        shape=shape,
        nfe=nfe,
        x0=x0,
        seed=seed,
        iterations=iterations,
        chunk=chunk,
        progress=progress,
    )
    require_gaussian(pipeline)
    require_one_field(pipeline)
    bare, iterations, seed = evolve(pipeline, codec=None), at_least(0, "iterations", iterations), check_seed(seed)
    steps = predictions_of(bare, nfe)
    x0 = source_of(bare, shape, x0, cond, spawn_seed(seed, 0))
    require_determined(x0, steps)
    chunk = states_of(None if chunk is None else at_least(1, "chunk", chunk), tuple(x0.shape))
    others = [source_states(bare, tuple(x0.shape), spawn_seed(seed, i), x0.dtype) for i in (2, 1)]
    cond = map_tensors(lambda tensor: tensor.to(x0.device), cond)
    with torch.no_grad(), evaluating(pipeline.model), shown(iterations, progress) as tell:
        found = _tried(bare, int(nfe), [x0, *others], cond, chunk, iterations, tell)
    if not found.won:
        return _uncalibrated(pipeline, found)
    provenance = {"nfe": int(nfe), "seed": seed, "pilot": list(x0.shape), "conditional": cond is not None}
    return pipeline.replace(solver=_solver(pipeline, found, provenance), grid=None)


def _tried(
    pipeline: Pipeline, nfe: int, draws: list[Tensor], cond: Any, chunk: int, iterations: int, tell: Tell
) -> Trial:
    """The trial on pilot, held-out noise and check, whose reference is as fine as the pilot's rivals ask for."""
    x0 = draws[0]
    runs = list(contenders(pipeline, nfe, x0, cond, chunk))
    if not runs:
        raise BudgetError(f"no uncalibrated solver runs on this pipeline with nfe={nfe}; give more calls")
    ends, steps = reference_ends(pipeline, x0, cond, [run.ends for run in runs], chunk)
    every = [ends, *(fine_ends(pipeline, other, cond, steps, chunk) for other in draws[1:])]
    closing = closes(pipeline, straight_space(pipeline.path))
    apart = needs_apart(pipeline, x0, cond)
    pilot, held, check = (
        Pilot(pipeline, x0, ends, cond, closing=closing, apart=apart, chunk=chunk)
        for x0, ends in zip(draws, every, strict=True)
    )
    return trial(runs, nfe, pilot, held, check, iterations, tell)


def _solver(pipeline: Pipeline, found: Trial, provenance: dict[str, Any]) -> Any:
    """The component "calibrated" of a fitted table: numbers, which a saved file can hold."""
    begin, fit, after = found.begin, found.fit, found.after
    assert begin is not None
    assert fit is not None
    assert after is not None
    numbers, path = fit.table.alone, pipeline.path
    times = asked_times(pipeline, numbers.times[0, :-1])
    if not closes(pipeline, straight_space(path)):
        times = torch.cat([times, times_of_clock(path, numbers.times[0, -1:])])
    return registry.build(
        "solver",
        "calibrated",
        space=str(straight_space(path)),
        times=times.tolist(),
        weights=[row[: s + 1] for s, row in enumerate(numbers.weights[0].tolist())],
        schedule=list(schedule_fingerprint(path)),
        predicts=[str(kind) for kind in pipeline.model.predicts],
        provenance={
            **provenance,
            "path": name_of(pipeline.path),
            "network": name_of(pipeline.model),
            "guidance": guidance_of(pipeline.guidance),
            "begun_from": begin.title,
            "free_numbers": free_numbers(fit.table.steps),
            "iterations": fit.iterations,
            "best_uncalibrated": {"solver": found.rival.title, **summary(found.before)},
            "calibrated": summary(after),
        },
    )


def _uncalibrated(pipeline: Pipeline, found: Trial) -> Pipeline:
    rival = found.rival
    why = "no uncalibrated table of this path is of the family that is fitted"
    if found.after is not None:
        why = f"on other noise its errors are {said(found.after)}, those of {rival.title} {said(found.before)}"
    warnings.warn(
        f"calibration did not beat the best uncalibrated table, {rival.title}, which is what you get: {why}. Try more "
        "trajectories, other noise (seed=), or another nfe",
        RuntimeWarning,
        stacklevel=3,
    )
    return pipeline.replace(solver=rival.pipeline.solver, grid=rival.pipeline.grid)
