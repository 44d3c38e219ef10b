"""A fit against the best uncalibrated table: who is nearer to the reference, on noise that the fit has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from attrs import frozen
from torch import Tensor

from fm_core.calibration.contenders import Contender
from fm_core.calibration.fitting import Fit, fit_table
from fm_core.calibration.pilot import Pilot
from fm_core.calibration.progress import Tell
from fm_core.calibration.rollout import errors_of
from fm_core.calibration.table import Table

__all__ = ["Trial", "said", "summary", "trial"]

STARTS, SHORT = 3, 4
"""From how many tables a fit begins, and the steps after which one of them is chosen."""

TOLERATED = 1.5
"""How many times the best uncalibrated table's root-mean-square error is let pass: a few trajectories rule it."""


@frozen(eq=False)
class Trial:
    """A fit and what it must beat.

    Args:
        rival: The best uncalibrated table on other noise.
        before: Its errors there, `(B,)`.
        begin: The table that the fit began from; None if there was none of the family.
        fit: What came of it.
        after: Its errors on that noise.
    """

    rival: Contender
    before: Tensor
    begin: Contender | None = None
    fit: Fit | None = None
    after: Tensor | None = None

    @property
    def won(self) -> bool:
        """Whether the fit is the better one."""
        return self.after is not None and _better(self.after, self.before)


def trial(runs: list[Contender], nfe: int, pilot: Pilot, check: Pilot, iterations: int, tell: Tell) -> Trial:
    """Fits to the pilot, from the best of the contenders, and compares on the check."""
    rivals = sorted(runs, key=lambda rival: _median(rival.errors(pilot.ends)))
    rival, before = _best_rival(rivals, nfe, check)
    begun = [(begin, table) for begin in rivals if (table := begin.table()) is not None]
    if not begun:
        return Trial(rival, before)
    begin, fit = _fitted(pilot, _distinct(begun), iterations, tell)
    return Trial(rival, before, begin, fit, errors_of(check, fit.table.alone)[0])


def _best_rival(rivals: list[Contender], nfe: int, check: Pilot) -> tuple[Contender, Tensor]:
    """The best uncalibrated table where it counts, on other noise, and its errors there."""
    judged = [(rival, rival.again(nfe, check.x0, check.cond).errors(check.ends)) for rival in rivals]
    return min(judged, key=lambda pair: _median(pair[1]))


def _distinct(begun: list[tuple[Contender, Table]]) -> list[tuple[Contender, Table]]:
    """Those of the most calls that are not the same table under another name."""
    most, kept = max(table.steps for _, table in begun), list[tuple[Contender, Table]]()
    for begin, table in begun:
        numbers = torch.cat([table.times, table.shares.flatten()])
        known = (torch.cat([other.times, other.shares.flatten()]) for _, other in kept)
        if table.steps == most and not any(torch.allclose(numbers, other) for other in known):
            kept.append((begin, table))
    return kept


def _fitted(pilot: Pilot, begun: list[tuple[Contender, Table]], iterations: int, tell: Tell) -> tuple[Contender, Fit]:
    """The fit to four fifths of the pilot, stopped by the last.

    It goes on from the best of a few short ones, and what steps are left when it stops go to the next best.
    """
    kept = len(pilot) - max(4, len(pilot) // 5)
    parts = (pilot, pilot)  # what holds something of each sample is of all of them
    if not pilot.apart:
        parts = pilot.rows(slice(0, kept)), pilot.rows(slice(kept, len(pilot)))
    starts = begun[:STARTS] if iterations > 2 * STARTS * SHORT else begun[:1]
    if len(starts) == 1:
        return starts[0][0], fit_table(*parts, starts[0][1], iterations, tell)
    short = [(begin, fit_table(*parts, table, SHORT, tell)) for begin, table in starts]
    ranked, ended = sorted(short, key=_error_on(pilot)), list[tuple[Contender, Fit]]()
    spent = sum(fit.iterations for _, fit in short)
    for begin, so_far in ranked:
        if spent < iterations:
            fit = fit_table(*parts, so_far.table, iterations - spent, tell)
            spent += fit.iterations
            ended.append((begin, fit))
    begin, best = min(ended, key=_error_on(pilot))
    return begin, Fit(best.table, spent)


def _error_on(pilot: Pilot) -> Callable[[tuple[Contender, Fit]], float]:
    """The median error of a fit on the whole pilot."""
    return lambda pair: _median(errors_of(pilot, pair[1].table.alone)[0])


def _better(after: Tensor, before: Tensor) -> bool:
    rms = [float(errors.square().mean().sqrt()) for errors in (after, before)]
    return _median(after) < _median(before) and rms[0] <= TOLERATED * rms[1]


def _median(errors: Tensor) -> float:
    return float(errors.nan_to_num(math.inf, math.inf).median())


def summary(errors: Tensor) -> dict[str, float]:
    """Median and root mean square."""
    return {"median": float(errors.median()), "rms": float(errors.square().mean().sqrt())}


def said(errors: Tensor) -> str:
    """Median and root mean square, in words."""
    found = summary(errors)
    return f"{found['median']:.3g} in the median and {found['rms']:.3g} in the root mean square"
