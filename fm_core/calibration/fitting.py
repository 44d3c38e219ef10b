"""Fitting a table to a pilot: robust Gauss–Newton with damping, stopped by trajectories that it does not see.

The loss is Σ_i ½·log(e_i² + δ²) over trajectories (Cauchy's), e_i the root-mean-square error of the end and δ their
median. A square, and even √(e_i² + δ²), would be ruled by the few that pass next to a separatrix and end in another
mode: among a dozen trajectories one such decides. With its weights `w_i = 1/(e_i² + δ²)` (iteratively reweighted least
squares) a step solves

    (H + µ·diag H)·Δ = −g,    H = Σ_i w_i·J_iᵀJ_i,    g = Σ_i w_i·J_iᵀr_i,

for several µ at once, and the best of them is taken. Damping keeps directions that the pilot does not determine.

References:
    Marquardt 1963. https://doi.org/10.1137/0111030
    Holland & Welsch 1977, iteratively reweighted least squares. https://doi.org/10.1080/03610927708827533
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from attrs import frozen
from torch import Tensor

from fm_core.calibration.comparing import median, robust
from fm_core.calibration.pilot import Pilot
from fm_core.calibration.rollout import errors_of, jacobian
from fm_core.calibration.table import Table, Tables, free_numbers

__all__ = ["Fit", "fit_table"]

DAMPINGS = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
"""What the last damping is multiplied by, all tried at once."""

FIRST_DAMPING, LEAST_DAMPING = 1e-2, 1e-10
GIVEN_UP = 1e8
"""Damping at which no step helps any more."""

PATIENCE = 6
"""Steps without the validation loss, a logarithm, falling by `GAIN` before the fit ends."""

GAIN = 0.01

CLOSEST = 1e-6
"""Times of a table are no closer: in a network's precision they would be one."""

HELD = 2**24
"""Numbers of derivatives held at once."""


@frozen(eq=False)
class Fit:
    """A fitted table.

    Args:
        table: The best on validation.
        iterations: Gauss–Newton steps taken.
    """

    table: Table
    iterations: int


def fit_table(
    pilot: Pilot, validation: Pilot, table: Table, iterations: int, tell: Callable[[float], None] = lambda loss: None
) -> Fit:
    """Fits times and weights.

    Args:
        pilot: Trajectories to fit to.
        validation: Others, which say when to stop.
        table: Where to begin.
        iterations: The most Gauss–Newton steps.
        tell: Called with the median error after each.
    """
    small = min(3e-2, max(1e-6, 3 * math.sqrt(torch.finfo(pilot.x0.dtype).eps)))
    damping, waited, done = FIRST_DAMPING, 0, 0
    errors = errors_of(pilot, table.alone)[0]
    best, least = table, errors_of(validation, table.alone)[0]
    while done < iterations and waited < PATIENCE and damping < GIVEN_UP:
        done += 1
        scale = _scale(errors)
        normal, slope = _normal_equations(pilot, table, errors, scale, small)
        tried = [_step(table, normal, slope, damping * factor) for factor in DAMPINGS]
        found = errors_of(pilot, _together(tried))
        losses = robust(found, scale)
        losses[torch.tensor([float(one.times.diff().min()) < CLOSEST for one in tried])] = math.inf
        k = int(losses.argmin())
        waited += 1
        if losses[k] < robust(errors, scale):
            table, errors, damping = tried[k], found[k], max(damping * DAMPINGS[k], LEAST_DAMPING)
            seen = errors_of(validation, table.alone)[0]
            before, after = float(robust(least, scale)), float(robust(seen, scale))
            waited = 0 if after < before - GAIN else waited
            best, least = (table, seen) if after < before else (best, least)
        else:
            damping *= 30
        tell(median(errors))
    return Fit(best, done)


def _scale(errors: Tensor) -> float:
    """δ: the median of those that are finite, and not 0."""
    finite = errors[errors.isfinite()]
    return max(float(finite.median()) if len(finite) else 1.0, math.sqrt(torch.finfo(torch.float64).tiny))


def _normal_equations(pilot: Pilot, table: Table, errors: Tensor, scale: float, small: float) -> tuple[Tensor, Tensor]:
    """H and g, accumulated over parts of the pilot."""
    weights = 1 / (errors.square() + scale**2)
    count = free_numbers(table.steps) + 1  # the gaps' common factor is none
    normal, slope = errors.new_zeros(count, count), errors.new_zeros(count)
    for rows, part in pilot.parts(count * (table.steps + 2), HELD):
        ends, slopes = jacobian(part, table, small)
        root = weights[rows].sqrt()[:, None]
        scaled, residuals = (slopes * root).flatten(1), ((ends - part.ends) * root).flatten()
        good = residuals.isfinite() & scaled.isfinite().all(0)
        scaled, residuals = scaled[:, good], residuals[good]
        normal += scaled @ scaled.T
        slope += scaled @ residuals
    return normal.cpu(), slope.cpu()


def _step(table: Table, normal: Tensor, slope: Tensor, damping: float) -> Table:
    diagonal = normal.diagonal()
    floor = max(1e-12 * float(diagonal.max()), torch.finfo(torch.float64).tiny)
    damped = normal + damping * torch.diag(diagonal.clamp(min=floor)) + torch.diag(floor + torch.zeros_like(diagonal))
    return table.moved(-torch.linalg.solve(damped, slope))


def _together(tables: list[Table]) -> Tables:
    alone = [table.alone for table in tables]
    return Tables(*(torch.cat(parts) for parts in zip(*((t.times, t.weights) for t in alone), strict=True)))
