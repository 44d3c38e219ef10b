"""How many network calls a time affords, measured.

A run of n calls takes about a + b·n seconds. Two numbers of calls are timed; the line through the longest run that fits
and the shortest that does not (or through the two nearest, of slope > 0) says what to try next, and that is timed
itself. So what is given fits, whatever the line was worth, and nearly fills the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from attrs import frozen

from fm_core.bench.contenders import Contender
from fm_core.errors import BudgetError, CompatError, TimeError

__all__ = ["Afforded", "affordable", "fastest"]

PROBES = (5, 25)
"""Budgets at which contenders are timed first."""

TIMINGS = 9
ENOUGH = 5.0
"""Seconds after which nothing is timed another time: runs that are long vary little."""

ATTEMPTS = 6
FILLED = 0.9
"""Part of the time which a run that is taken fills, if more calls can be had within so many attempts."""

Key = TypeVar("Key", bound=Hashable)
Run = Callable[[], object]


@frozen
class Afforded:
    """What a contender may spend.

    Args:
        calls: Network calls of a sample.
        seconds: What a batch took with so many; None if it was not timed.
    """

    calls: int
    seconds: float | None = None


def fastest(runs: Mapping[Key, Run]) -> dict[Key, float]:
    """Least seconds of each run, all in turn: what else happens on the machine only adds."""
    times: dict[Key, float] = {}
    ends = time.perf_counter() + ENOUGH
    for _ in range(TIMINGS):
        for key, go in runs.items():
            began = time.perf_counter()
            go()
            took = time.perf_counter() - began
            times[key] = min(took, times.get(key, took))
        if time.perf_counter() > ends:
            break
    return times


def affordable(
    competing: Sequence[Contender], run: Callable[[Contender, int], Run], seconds: float, most: int
) -> dict[Contender, Afforded]:
    """The most network calls of each contender with which a run takes no longer than this; those that have none lack.

    Args:
        competing: Contenders.
        run: What samples a batch by a contender within a number of calls.
        seconds: The time.
        most: Network calls beyond which nothing is looked for.
    """
    points: dict[Contender, dict[int, float]] = {one: {} for one in competing}
    trying = {(one, n) for one in competing for n in PROBES}
    for _ in range(1 + ATTEMPTS):
        for (one, n), took in fastest(_runs(trying, run)).items():
            points[one][n] = took
        trying = {(one, n) for one in competing if points[one] and (n := _next(points[one], seconds, most))}
        if not trying:
            break
    fits = {one: [n for n, took in points[one].items() if took <= seconds and n <= most] for one in competing}
    return {one: Afforded(max(own), points[one][max(own)]) for one, own in fits.items() if own}


def _runs(
    asked: Iterable[tuple[Contender, int]], run: Callable[[Contender, int], Run]
) -> dict[tuple[Contender, int], Run]:
    """What can be run of what is asked, each warmed up by a first run."""
    found = {}
    for contender, nfe in asked:
        try:
            found[contender, nfe] = run(contender, nfe)
            found[contender, nfe]()
        except (BudgetError, CompatError, TimeError):
            found.pop((contender, nfe), None)
    return found


def _next(points: Mapping[int, float], seconds: float, most: int) -> int:
    """The number of calls to be tried next; 0 for none."""
    low = max((n for n, took in points.items() if took <= seconds), default=0)
    high = min((n for n, took in points.items() if took > seconds and n > low), default=most + 1)
    if high - low == 1 or (low and points[low] >= FILLED * seconds):
        return 0
    if high <= most:
        began = points.get(low, 0.0)
        slope = (points[high] - began) / (high - low)
    else:
        few = min(points)
        slope = max((points[low] - points[few]) / max(low - few, 1), points[low] / low / 10)
        began = points[low]
    return min(max(low + int((seconds - began) / slope), low + 1), high - 1)
