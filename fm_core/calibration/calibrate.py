"""`calibrate`: a pipeline, a pilot and a budget make a pipeline whose solver is fitted to its own field."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from attrs import evolve
from torch import Tensor

from fm_core import registry
from fm_core.building import name_of
from fm_core.calibration.contenders import contenders
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
from fm_core.calibration.trial import Trial, said, summary, trial
from fm_core.compat import Problem
from fm_core.drawing import whole_shape
from fm_core.errors import BudgetError, CompatError, DataError
from fm_core.evaluating import evaluating
from fm_core.field import schedule_fingerprint
from fm_core.pipeline import Pipeline
from fm_core.protocols import declared
from fm_core.randomness import spawn_seed
from fm_core.shapes import check_batch, map_tensors
from fm_core.straight import straight_space, times_of_clock

__all__ = ["calibrate"]

LEAST_PILOT = 16
"""Trajectories below which no median means anything."""


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

    Times and weights of a table are chosen such that a pilot's trajectories end where a fine reference takes them. If
    on as many of other noise it is no better than the best uncalibrated table, that one is returned, with a warning.

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
        BudgetError: For a budget that affords no step.
        DataError: For a pilot with fewer numbers than the table, or without finite ends.
        CompatError: For a path without α and σ.
    """
    _require_gaussian(pipeline)
    bare = evolve(pipeline, codec=None)
    x0 = _source(bare, shape, x0, cond, spawn_seed(seed, 0))
    other = source_states(bare, tuple(x0.shape), spawn_seed(seed, 1), x0.dtype)
    cond = map_tensors(lambda tensor: tensor.to(x0.device), cond)
    _require_pilot(x0, _steps(bare, nfe))
    with torch.no_grad(), evaluating(pipeline.model), shown(iterations, progress) as tell:
        found = _tried(bare, nfe, (x0, other), cond, chunk, iterations, tell)
    if not found.won:
        return _uncalibrated(pipeline, found)
    provenance = {"nfe": nfe, "seed": seed, "pilot": list(x0.shape), "conditional": cond is not None}
    return pipeline.replace(solver=_solver(pipeline, found, provenance), grid=None)


def _require_gaussian(pipeline: Pipeline) -> None:
    if not all(hasattr(pipeline.path, name) for name in ("alpha", "sigma", "affine", "span")):
        raise CompatError(
            [
                Problem(
                    f"{name_of(pipeline.path)} cannot be calibrated",
                    "a calibrated table has the linear part of a Gaussian path, α and σ",
                    "use a Gaussian path, or an uncalibrated solver",
                )
            ]
        )


def _source(pipeline: Pipeline, shape: Any, x0: Tensor | None, cond: Any, seed: int) -> Tensor:
    """The pilot's source samples, where the network is and in its dtype."""
    if (shape is None) == (x0 is None):
        raise DataError("say what to calibrate on by one of: a shape (B, *D), or x0= source samples")
    device, dtype = pipeline.placement
    if x0 is None:
        x0 = source_states(pipeline, whole_shape(pipeline, shape), seed, dtype)
    elif isinstance(getattr(pipeline.model, "net", None), torch.nn.Module):
        x0 = x0.to(device, dtype)
    check_batch(cond, len(x0), "cond")
    return x0


def _steps(pipeline: Pipeline, nfe: int) -> int:
    """The predictions that so many calls afford."""
    each = math.prod(
        int(declared(guidance, "evals")) for guidance in pipeline.guidance if not declared(guidance, "off")
    )
    if isinstance(nfe, bool) or not isinstance(nfe, int) or nfe // each < 2:
        raise BudgetError(f"a calibrated table takes at least 2 predictions, nfe={2 * each} here; got nfe={nfe!r}")
    return nfe // each


def _require_pilot(x0: Tensor, steps: int) -> None:
    size, free = x0[0].numel(), free_numbers(steps)
    least = max(LEAST_PILOT, math.ceil(free / size))
    if len(x0) < least:
        raise DataError(
            f"a table of {steps} predictions has {free} free numbers, and {len(x0)} trajectories of {size} numbers do "
            f"not determine them: the fit would learn this pilot by heart. Give at least {least} trajectories, better "
            f"{4 * least}, or a smaller nfe"
        )


def _tried(
    pipeline: Pipeline,
    nfe: int,
    draws: tuple[Tensor, Tensor],
    cond: Any,
    chunk: int | None,
    iterations: int,
    tell: Tell,
) -> Trial:
    """The trial on pilot and check, whose reference is as fine as the pilot's rivals ask for."""
    runs = list(contenders(pipeline, nfe, draws[0], cond))
    if not runs:
        raise BudgetError(f"no uncalibrated solver runs on this pipeline with nfe={nfe}; give more calls")
    ends, steps = reference_ends(pipeline, draws[0], cond, [run.ends for run in runs])
    both = ends, fine_ends(pipeline, draws[1], cond, steps)
    pilot, check = (
        Pilot(
            pipeline,
            x0,
            ends,
            cond,
            closing=closes(pipeline, straight_space(pipeline.path)),
            apart=needs_apart(pipeline, x0[:1] if cond is None else x0, cond),
            chunk=states_of(chunk, tuple(x0.shape)),
        )
        for x0, ends in zip(draws, both, strict=True)
    )
    return trial(runs, nfe, pilot, check, iterations, tell)


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
            "guidance": [name_of(guidance) for guidance in pipeline.guidance],
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
