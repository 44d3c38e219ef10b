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
from fm_core.calibration.contenders import Contender, contenders
from fm_core.calibration.fitting import Fit, fit_table
from fm_core.calibration.pilot import Pilot, closes, needs_apart, reference_ends, source_states, states_of
from fm_core.calibration.progress import shown
from fm_core.calibration.rollout import errors_of
from fm_core.calibration.table import Table, free_numbers
from fm_core.compat import Problem
from fm_core.errors import BudgetError, CompatError, DataError
from fm_core.field import schedule_fingerprint
from fm_core.pipeline import Pipeline
from fm_core.protocols import declared
from fm_core.randomness import spawn_seed
from fm_core.sampling import evaluating, whole_shape
from fm_core.shapes import check_batch, map_tensors

__all__ = ["calibrate"]

LEAST_PILOT = 16
"""Trajectories below which no median means anything."""

TOLERATED = 1.5
"""How many times the best uncalibrated table's root-mean-square error is let pass: a few trajectories rule it."""


def calibrate(
    pipeline: Pipeline,
    shape: int | Sequence[int] | None = None,
    *,
    nfe: int,
    x0: Tensor | None = None,
    cond: Any = None,
    seed: int = 0,
    iterations: int = 25,
    chunk: int | None = None,
    progress: bool | None = None,
) -> Pipeline:
    """The pipeline with a solver fitted to its own field, guidance included, for one budget of network calls.

    Times and weights of a table are chosen such that the trajectories of a pilot end where a fine reference takes them,
    and the choice is checked on as many trajectories of other noise. If there it is no better than the best
    uncalibrated table, that one is returned, with a warning that says so.

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
        pilot, check = (_pilot(bare, draws, cond, chunk) for draws in (x0, other))
        rivals = sorted(contenders(bare, nfe, x0, cond), key=lambda rival: _median(rival.errors(pilot.ends)))
        found = _beginning(rivals, bare)
        best = _best_rival(bare, rivals, nfe, check)
        if found is None:
            return _uncalibrated(
                pipeline, best[0], "no uncalibrated table of this path is of the family that is fitted"
            )
        begin, table = found
        closing = closes(bare, table.space)
        fit = _fitted(evolve(pilot, closing=closing), table, iterations, tell)
        after = errors_of(evolve(check, closing=closing), fit.table.alone, table.space)[0]
    rival, before = best
    if not _better(after, before):
        return _uncalibrated(
            pipeline, rival, f"on other noise its errors are {_said(after)}, those of {rival.title} {_said(before)}"
        )
    provenance = {
        "nfe": nfe,
        "seed": seed,
        "pilot": list(x0.shape),
        "path": name_of(pipeline.path),
        "network": name_of(pipeline.model),
        "guidance": [name_of(guidance) for guidance in pipeline.guidance],
        "conditional": cond is not None,
        "begun_from": begin.title,
        "free_numbers": free_numbers(table.steps),
        "iterations": fit.iterations,
        "best_uncalibrated": {"solver": rival.title, **_summary(before)},
        "calibrated": _summary(after),
    }
    return pipeline.replace(solver=_solver(pipeline, fit.table, provenance), grid=None)


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
    """About how many steps so many calls afford; the closing prediction may take one of them."""
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


def _pilot(pipeline: Pipeline, x0: Tensor, cond: Any, chunk: int | None) -> Pilot:
    apart = needs_apart(pipeline, x0[:1] if cond is None else x0, cond)
    ends = reference_ends(pipeline, x0, cond)
    return Pilot(pipeline, x0, ends, cond, closing=False, apart=apart, chunk=states_of(chunk, tuple(x0.shape)))


def _beginning(rivals: list[Contender], pipeline: Pipeline) -> tuple[Contender, Table] | None:
    """The first that is a table of the family, in falling merit."""
    for rival in rivals:
        table = rival.table()
        if table is not None:
            return rival, table
    return None


def _best_rival(pipeline: Pipeline, rivals: list[Contender], nfe: int, check: Pilot) -> tuple[Contender, Tensor]:
    """The best uncalibrated table where it counts, on other noise, and its errors there."""
    judged = [(rival, rival.again(nfe, check.x0, check.cond).errors(check.ends)) for rival in rivals]
    if not judged:
        raise BudgetError(f"no uncalibrated solver runs on this pipeline with nfe={nfe}; give more calls")
    return min(judged, key=lambda pair: _median(pair[1]))


def _fitted(pilot: Pilot, table: Table, iterations: int, tell: Any) -> Fit:
    """The fit to four fifths of the pilot, stopped by the last."""
    if pilot.apart:  # what holds something of each sample is of all of them
        return fit_table(pilot, pilot, table, iterations, tell)
    kept = len(pilot) - max(4, len(pilot) // 5)
    return fit_table(pilot.rows(slice(0, kept)), pilot.rows(slice(kept, len(pilot))), table, iterations, tell)


def _solver(pipeline: Pipeline, table: Table, provenance: dict[str, Any]) -> Any:
    """The component "calibrated" of this table: numbers, which a saved file can hold."""
    numbers = table.alone
    weights = [row[: s + 1] for s, row in enumerate(numbers.weights[0].tolist())]
    return registry.build(
        "solver",
        "calibrated",
        space=str(table.space),
        times=numbers.times[0].tolist(),
        carry=numbers.carry[0].tolist(),
        weights=weights,
        schedule=list(schedule_fingerprint(pipeline.path)),
        predicts=[str(kind) for kind in pipeline.model.predicts],
        provenance=provenance,
    )


def _uncalibrated(pipeline: Pipeline, rival: Contender, why: str) -> Pipeline:
    warnings.warn(
        f"calibration did not beat the best uncalibrated table, {rival.title}, which is what you get: {why}. Try more "
        "trajectories, other noise (seed=), or another nfe",
        RuntimeWarning,
        stacklevel=3,
    )
    return pipeline.replace(solver=rival.pipeline.solver, grid=rival.pipeline.grid)


def _better(after: Tensor, before: Tensor) -> bool:
    rms = [float(errors.square().mean().sqrt()) for errors in (after, before)]
    return _median(after) < _median(before) and rms[0] <= TOLERATED * rms[1]


def _median(errors: Tensor) -> float:
    return float(errors.nan_to_num(math.inf, math.inf).median())


def _summary(errors: Tensor) -> dict[str, float]:
    return {"median": float(errors.median()), "rms": float(errors.square().mean().sqrt())}


def _said(errors: Tensor) -> str:
    said = _summary(errors)
    return f"{said['median']:.3g} in the median and {said['rms']:.3g} in the root mean square"
