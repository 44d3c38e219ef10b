"""Orders of convergence: what a solver declares, what it shows where theory speaks, and what a problem lets one see.

On the whole of a path an order is seldom seen. Next to both ends the log-SNR is infinite: whatever their number, the
last steps of a uniform grid are of length log 2, log 3/2, … in it, so that a polynomial in it errs there by O(h²); a
grid in log-SNR ends where it is cut off. A history that has yet to be gathered starts at order 1, and errors may reach
those of the reference, or not be at their limit yet. Hence two figures:

    order     inside a path, t from 0.15 to 0.85, on an exact field, on grids whose first and last steps do not count:
              the slope of log error over −log steps from 48 to 96
    slope     of log error over −log NFE between the finest budgets of a problem: seed by seed, with an interval, and
              only where it does not change any more

The first are cells of the suite "orders", one for each solver and path. A declared order is one number for every path
and every number of steps: a promise of at least so much, here as in the conformance kit. More is shown by a solver that
chooses its table by its budget and declares the order of the lowest, as `auto` does.

References:
    Hairer, Nørsett & Wanner 1993, II.3, III.2. https://doi.org/10.1007/978-3-540-78862-1
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from attrs import frozen

from fm_core.bench.contenders import Contender, missing
from fm_core.bench.records import Record
from fm_core.bench.report.cells import DOUBT, Cell as Measured
from fm_core.bench.report.choosing import usable
from fm_core.bench.report.quantities import number
from fm_core.bench.running import Cell, NotHere
from fm_core.bench.statistics import Estimate, estimate
from fm_core.errors import CompatError, DivergenceError, FMError

__all__ = ["SUITE", "Order", "Slope", "cells", "inside", "orders", "slope", "slopes", "sound", "told"]

SUITE = "orders"
STEPS = (24, 48, 96)
ROUNDING = 1e-12
"""Root mean square below which an error is rounding."""

BLOWN_UP = 1e3
"""Errors so many times as large as the ends are no errors of a method that converges."""

FINEST = 3
"""Points of least step that a slope is fitted to."""

SETTLED = 0.35
"""An order is as declared, or has been kept, and a slope has settled, to this: what the kit forgives."""


@frozen
class Order:
    """Order of a solver inside a path.

    Args:
        solver: As one types it.
        declared: What it says of itself; None where it did not run.
        measured: The least over the paths; None where it could not be told.
        why: Why not.
    """

    solver: str
    declared: float | None
    measured: float | None
    why: str = ""

    @property
    def kept(self) -> bool | None:
        """Whether at least the declared order is shown; None where it cannot be told."""
        if self.measured is None or self.declared is None:
            return None
        return self.measured >= self.declared - SETTLED

    @property
    def verdict(self) -> str:
        """How the two compare."""
        if self.measured is None or self.declared is None:
            return f"cannot tell: {self.why}"
        if not self.kept:
            return "less than declared"
        return "more than declared" if self.measured > self.declared + SETTLED else "as declared"


@frozen
class Slope:
    """Order that a contender's errors on one problem show.

    Args:
        value: With its interval over the seeds; None where nothing can be told.
        why: Why not.
    """

    value: Estimate | None
    why: str = ""


def cells(competing: Iterable[Contender]) -> Iterator[Cell]:
    """A cell for each of our deterministic solvers on fixed grids, whichever, and each path."""
    from fm_core.testing.fields import PATHS

    seen: set[str] = set()
    for contender in competing:
        if contender.group != "ours" or contender.fitted or missing(contender):
            continue
        name = contender.title
        if contender.stochastic or contender.adaptive or name in seen:
            continue
        seen.add(name)
        for path in PATHS:
            record = Record(SUITE, f"inside the {path} path", name, {}, 0)
            yield Cell(record, partial(inside, contender.built, path))


def inside(solver: Any, path: str) -> Mapping[str, float]:
    """Order of a solver on the exact field of a mixture, inside a path by its name."""
    from fm_core.testing.fields import FROM, MIXTURE, PATHS, TO, exact_states, run, settled, start

    on = PATHS[path]
    x = start(on, MIXTURE, FROM)
    ends = exact_states(on, MIXTURE, x, [FROM, TO])[-1]
    try:
        runs = [run(solver, on, MIXTURE, x, settled(n)).x for n in STEPS]
    except CompatError:
        raise
    except (FMError, NotImplementedError) as error:
        raise NotHere(f"it does not run from {FROM:g} to {TO:g} on a given grid: {error}") from error
    errors = [float((out - ends).square().mean().sqrt()) for out in runs]
    for steps, off in zip(STEPS, errors, strict=True):
        if not off <= BLOWN_UP * float(ends.square().mean().sqrt()):
            raise DivergenceError(f"it blows up from {FROM:g} to {TO:g}: its error is {off:.2g} with {steps} steps")
    least = min(errors)
    if least < ROUNDING:
        raise NotHere(f"its errors are {least:.1g} with {STEPS[-1]} steps: rounding")
    early, late = slope(STEPS[:2], errors[:2]), slope(STEPS[1:], errors[1:])
    assert early is not None
    assert late is not None
    if late < solver.order - SETTLED and late > early + SETTLED:
        raise NotHere(f"its slope still rises, from {early:.2g} to {late:.2g}, with {STEPS[-1]} steps")
    return {"order": late, "declared_order": float(solver.order), "error_rms": errors[-1]}


def slope(sizes: Sequence[float], errors: Sequence[float], floor: float = 0.0) -> float | None:
    """The power p of `error = C·size^−p`: of log error over −log size by least squares, over the finest points.

    >>> slope([10, 20, 40, 80], [9.0, 1 / 4, 1 / 16, 1 / 64])
    2.0

    Args:
        sizes: Steps or network calls, in any order.
        errors: The errors there.
        floor: Error of the reference, or of rounding: points that come near it are left out.

    Returns:
        None where fewer than two points are left.
    """
    from statistics import linear_regression

    points = sorted((n, e) for n, e in zip(sizes, errors, strict=True) if e > DOUBT * floor and e > 0)[-FINEST:]
    x, y = ([math.log(point[i]) for point in points] for i in range(2))
    if len(set(x)) < 2:
        return None
    return -linear_regression(x, y).slope


def orders(found: Iterable[Measured]) -> list[Order]:
    """What the cells of the suite "orders" say of each solver."""
    own: dict[str, list[Measured]] = {}
    for cell in found:
        own.setdefault(cell.contender, []).append(cell)
    return [_order(solver, theirs) for solver, theirs in own.items()]


def sound(found: Iterable[Measured], measured: Iterable[Order]) -> list[Measured]:
    """The cells of solvers that keep the order they declare, as far as it is known: no other is to be recommended."""
    broken = {one.solver for one in measured if one.kept is False}
    return [cell for cell in found if cell.notes.get("solver") not in broken]


def told(found: Sequence[Order]) -> str:
    """How many solvers keep what they declare, and who shows more, or less, in a sentence.

    >>> told([Order("heun", 2.0, 1.98), Order("auto", 2.0, 4.7)])
    '2 of 2 solvers show at least the order that they declare; more than declared: auto (4.7, declared 2).'
    """
    kept = sum(one.kept is True for one in found)
    said = [f"{kept} of {len(found)} solvers show at least the order that they declare"]
    for verdict in ("more than declared", "less than declared"):
        named = [_compared(one) for one in found if one.verdict == verdict]
        said += [f"{verdict}: {', '.join(named)}"] if named else []
    said += [f"{one.solver}: {one.verdict}" for one in found if one.kept is None]
    return "; ".join(said) + "."


def _compared(one: Order) -> str:
    assert one.measured is not None
    assert one.declared is not None
    return f"{one.solver} ({number(one.measured, 2)}, declared {number(one.declared)})"


def slopes(found: Sequence[Measured]) -> dict[str, Slope]:
    """The slopes of all contenders on one problem."""
    own: dict[str, list[Measured]] = {}
    for cell in found:
        own.setdefault(cell.contender, []).append(cell)
    return {contender: _slope(usable(theirs, "nfe", "error_median")) for contender, theirs in own.items()}


def _order(solver: str, theirs: Sequence[Measured]) -> Order:
    told = [order for cell in theirs if (order := cell.middle("order")) is not None]
    declared = next((said for cell in theirs if (said := cell.middle("declared_order")) is not None), None)
    why = "; ".join(dict.fromkeys(cell.why for cell in theirs if cell.why))
    return Order(solver, declared, min(told, default=None), why)


def _slope(competing: Sequence[Measured]) -> Slope:
    floor = max((error for cell in competing if (error := cell.middle("reference_error"))), default=0.0)
    by_calls = {cell.middle("nfe"): cell for cell in competing}
    fine = [by_calls[n] for n in sorted(n for n in by_calls if n)][-FINEST:]
    medians = [(cell.estimates["nfe"].median, cell.estimates["error_median"].median) for cell in fine]
    if len(fine) < FINEST:
        return Slope(None, f"fewer than {FINEST} budgets")
    if any(error <= DOUBT * floor for _, error in medians):
        return Slope(None, f"its errors come near the reference's, {floor:.0e}")
    (n0, e0), (n1, e1), (n2, e2) = medians
    early, late = slope((n0, n1), (e0, e1)), slope((n1, n2), (e1, e2))
    if early is None or late is None:
        return Slope(None, "an error is 0")
    if abs(late - early) > SETTLED:
        return Slope(None, f"not settled: {early:.2g}, then {late:.2g}")
    seeds = set.intersection(*({record.seed for record in cell.records} for cell in fine))
    each = [_of_seed(fine, seed) for seed in sorted(seeds)]
    return Slope(estimate([one for one in each if one is not None] or [late], "plain"))


def _of_seed(fine: Sequence[Measured], seed: int) -> float | None:
    figures = [record.figures for cell in fine for record in cell.records if record.seed == seed]
    return slope([one["nfe"] for one in figures], [one["error_median"] for one in figures])
