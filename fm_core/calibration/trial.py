"""A fit against the best uncalibrated table: who is nearer to the reference, on noise that the fit has not seen."""

from __future__ import annotations

from collections.abc import Callable

import torch
from attrs import frozen
from torch import Tensor

from fm_core.calibration.comparing import better, median, ranked
from fm_core.calibration.contenders import Contender
from fm_core.calibration.fitting import Fit, fit_table
from fm_core.calibration.pilot import Pilot
from fm_core.calibration.progress import Tell
from fm_core.calibration.rollout import errors_of
from fm_core.calibration.table import Table

__all__ = ["Trial", "trial"]

STARTS, SHORT = 3, 4
"""From how many tables a fit begins, and the steps after which one of them is chosen."""


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
        return self.after is not None and better(self.after, self.before)


def trial(
    runs: list[Contender], nfe: int, pilot: Pilot, held: Pilot, check: Pilot, iterations: int, tell: Tell
) -> Trial:
    """Fits a table and compares it with the best of the contenders, where the reference ends in finite numbers.

    Args:
        runs: The contenders on the pilot.
        nfe: Network calls.
        pilot: What is fitted to.
        held: Trajectories of other noise, which say when to stop.
        check: Trajectories of yet other noise, on which the two are compared.
        iterations: The most Gauss–Newton steps.
        tell: Hears the median error after each.
    """
    rivals = sorted(runs, key=lambda rival: median(rival.errors(pilot.ends)))
    rival, before = _best_rival(rivals, nfe, check)
    begun = [(begin, table) for begin in rivals if (table := begin.table()) is not None]
    if not begun:
        return Trial(rival, before)
    begin, fit = _fitted(pilot, held, _distinct(begun), iterations, tell)
    return Trial(rival, before, begin, fit, _known(check, errors_of(check, fit.table.alone)[0]))


def _best_rival(rivals: list[Contender], nfe: int, check: Pilot) -> tuple[Contender, Tensor]:
    """The best uncalibrated table where it counts, on other noise, and its errors there."""
    judged = [
        (rival, _known(check, rival.again(nfe, check.x0, check.cond, check.chunk).errors(check.ends)))
        for rival in rivals
    ]
    return min(judged, key=lambda pair: median(pair[1]))


def _known(check: Pilot, errors: Tensor) -> Tensor:
    """The errors of those trajectories whose true ends are known: the reference ends in finite numbers."""
    return errors[check.ends.isfinite().all(1)]


def _distinct(begun: list[tuple[Contender, Table]]) -> list[tuple[Contender, Table]]:
    """Those of the most calls that are not the same table under another name."""
    most, kept = max(table.steps for _, table in begun), list[tuple[Contender, Table]]()
    for begin, table in begun:
        numbers = torch.cat([table.times, table.shares.flatten()])
        known = (torch.cat([other.times, other.shares.flatten()]) for _, other in kept)
        if table.steps == most and not any(torch.allclose(numbers, other) for other in known):
            kept.append((begin, table))
    return kept


def _fitted(
    pilot: Pilot, held: Pilot, begun: list[tuple[Contender, Table]], iterations: int, tell: Tell
) -> tuple[Contender, Fit]:
    """The fit to the pilot, stopped by what is held out.

    It goes on from the best of a few short ones, and what steps are left when it stops go to the next best.
    """
    starts = begun[:STARTS] if iterations > 2 * STARTS * SHORT else begun[:1]
    if len(starts) == 1:
        return starts[0][0], fit_table(pilot, held, starts[0][1], iterations, tell)
    short = [(begin, fit_table(pilot, held, table, SHORT, tell)) for begin, table in starts]
    ranked, ended = sorted(short, key=_on(pilot, held)), list[tuple[Contender, Fit]]()
    spent = sum(fit.iterations for _, fit in short)
    for begin, so_far in ranked:
        if spent < iterations:
            fit = fit_table(pilot, held, so_far.table, iterations - spent, tell)
            spent += fit.iterations
            ended.append((begin, fit))
    begin, best = min(ended, key=_on(pilot, held))
    return begin, Fit(best.table, spent)


def _on(*pilots: Pilot) -> Callable[[tuple[Contender, Fit]], tuple[int, float]]:
    """How good a fit is on all these trajectories, the least the best."""
    return lambda pair: ranked(torch.cat([errors_of(pilot, pair[1].table.alone)[0] for pilot in pilots]))
