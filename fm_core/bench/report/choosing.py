"""Which contender to take: the best at each budget, who is level with it, the Pareto front, and who is dominated.

At a budget b compete all cells that cost at most b, of each contender the one of least median error. *Level* are those
of them than which none is better beyond noise, as `statistics.differ` tells it seed by seed, and beyond what the
reference is right to (`cells.apart`): between these no difference was found. The *best* is the plainest of the level:
of the fewest network calls, then on its solver's own grid, of the lowest order, of the shortest name, the first in the
alphabet. With too few seeds to tell, it is the one of least median error, and none is level with it. The *front* are
the cells of less error than every cell that costs no more. A cell is *beaten* if another contender's on the front costs
no more, or no more than can be told, and has less error beyond the intervals, where there are any. A contender is
*dominated* if all its cells are beaten.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

from attrs import frozen

from fm_core.bench.report.cells import Cell, apart
from fm_core.bench.statistics import Estimate

__all__ = [
    "PLACES",
    "Advice",
    "Choice",
    "Standing",
    "Tally",
    "advise",
    "affordable",
    "choose",
    "front",
    "standings",
    "tally",
    "usable",
]


PLACES = ("front", "level", "dominated")
"""How a contender may stand, the best first."""


@frozen(eq=False)
class Choice:
    """What to take at one budget.

    Args:
        best: The plainest cell of those than which none is better.
        value: Its error.
        level: The other contenders than which none is better, the plainest first.
        judged: Whether there are intervals to judge by: at least three seeds.
        doubtful: Whether the least error is below twice the reference's own: it may be none.
        peer: The best cell of another library, if ours is the best; ours, if a peer is.
        ratio: That one's median error over the best's.
        against: How our best stands to the best peer: "ahead", "level", "behind"; empty where one is missing or nothing
            can be judged.
    """

    best: Cell
    value: Estimate
    level: tuple[str, ...]
    judged: bool
    doubtful: bool
    peer: str
    ratio: float | None
    against: str


@frozen
class Standing:
    """How a contender stands on one problem.

    Args:
        place: "front", "level" (some cell of it is not beaten) or "dominated".
        by: Who dominates it: any of these alone beats all its cells, or, if `together`, all of these do.
        together: Whether it takes several to beat all its cells.
    """

    place: str
    by: tuple[str, ...] = ()
    together: bool = False


@frozen
class Tally:
    """How often each contender is the best or level with it.

    Args:
        places: Number of problems × budgets.
        taken: Contenders with how often, the most often first; of several the one that is the best itself most often,
            then of the shortest name.
        against: How often our best is "ahead" of the best peer, "level" and "behind".
        ratio: Median over these places of the best peer's error over our best's; None without peers.
    """

    places: int
    taken: tuple[tuple[str, int], ...]
    against: Counter[str]
    ratio: float | None


@frozen
class Advice:
    """What to take over a run of budgets.

    Args:
        first, last: The run, as places among the columns.
        contender: Who is the best or level with it most often at each of these budgets.
        times: In how many cases it is.
        cases: Of so many.
        equals: Others that are it as often at each of these budgets.
    """

    first: int
    last: int
    contender: str
    times: int
    cases: int
    equals: tuple[str, ...] = ()


def usable(cells: Iterable[Cell], *figures: str) -> list[Cell]:
    """The cells that compete: every seed is "ok", and these figures are there; the least of the first of them first."""
    there = [cell for cell in cells if cell.status == "ok" and cell.estimates.keys() >= set(figures)]
    return sorted(there, key=lambda cell: [_median(cell, figure) for figure in figures])


def affordable(cells: Iterable[Cell], cost: str, budget: float) -> list[Cell]:
    """The cells that cost at most so much."""
    return [cell for cell in cells if (spent := cell.middle(cost)) is not None and spent <= budget]


def choose(cells: Iterable[Cell], error: str) -> Choice | None:
    """The best of cells; None where none is usable."""
    leaders: dict[str, Cell] = {}
    for cell in sorted(usable(cells, error), key=lambda cell: _median(cell, error)):
        leaders.setdefault(cell.contender, cell)
    if not leaders:
        return None
    least, *_ = ranked = list(leaders.values())
    level = [least] + [cell for k, cell in enumerate(ranked) if k and _unbeaten(cell, ranked[:k], error)]
    best, *others = sorted(level, key=_plainness)
    value, rest = best.estimates[error], [cell for cell in ranked if cell is not best]
    other = next((cell for cell in rest if cell.is_peer != best.is_peer), None)
    return Choice(
        best=best,
        value=value,
        level=tuple(cell.contender for cell in others),
        judged=value.low is not None,
        doubtful=least.estimates[error].median < 2 * least.doubt(error),
        peer=other.contender if other else "",
        ratio=_median(other, error) / value.median if other and value.median > 0 else None,
        against=_against(best, other, error),
    )


def _unbeaten(cell: Cell, better: Sequence[Cell], error: str) -> bool:
    """Whether no difference was found between a cell and any of less median error; False where it cannot be told."""
    return all(apart(one, cell, error) is False for one in better)


def _plainness(cell: Cell) -> tuple[float, bool, float, int, str]:
    """The least is the plainest. No clock counts: what is plain today is plain tomorrow."""
    order = cell.notes.get("order")
    own = order if isinstance(order, (int, float)) else math.inf
    return cell.middle("nfe") or 0.0, "grid" in cell.notes, own, len(cell.contender), cell.contender


def front(cells: Sequence[Cell], cost: str, error: str) -> list[Cell]:
    """The Pareto front, the cheapest first."""
    found: list[Cell] = []
    for cell in usable(cells, cost, error):
        if not found or _median(cell, error) < _median(found[-1], error):
            found.append(cell)
    return found


def standings(cells: Sequence[Cell], cost: str, error: str) -> dict[str, Standing]:
    """How each contender stands that has a usable cell."""
    competing = usable(cells, cost, error)
    best = front(competing, cost, error)
    leaders = {cell.contender for cell in best}
    own: dict[str, list[Cell]] = {}
    for cell in competing:
        own.setdefault(cell.contender, []).append(cell)
    found: dict[str, Standing] = {}
    for contender, theirs in own.items():
        beaters = [[other.contender for other in best if _beats(other, cell, cost, error)] for cell in theirs]
        stand = _standing(beaters)
        found[contender] = Standing("front") if stand.place == "level" and contender in leaders else stand
    return found


def tally(choices: Sequence[Choice]) -> Tally:
    """Choices at all problems and budgets, counted."""
    taken = Counter(name for choice in choices for name in (choice.best.contender, *choice.level))
    against = Counter(choice.against for choice in choices if choice.against)
    ratios = [
        1 / choice.ratio if choice.best.is_peer else choice.ratio for choice in choices if choice.ratio is not None
    ]
    firsts = Counter(choice.best.contender for choice in choices)
    ranked = sorted(taken.items(), key=lambda one: (-one[1], -firsts[one[0]], len(one[0]), one[0]))
    return Tally(len(choices), tuple(ranked), against, statistics.median(ratios) if ratios else None)


def advise(columns: Sequence[Sequence[Choice]]) -> list[Advice]:
    """Whom to take at each budget, in runs as long as can be.

    Args:
        columns: The choices at each budget, one a problem.
    """
    counts = [Counter(dict(tally(column).taken)) for column in columns]
    runs: list[tuple[int, set[str]]] = []
    for at, count in enumerate(counts):
        leading = {name for name, times in count.items() if times == max(count.values())}
        if runs and (lasting := runs[-1][1] & leading):
            runs[-1] = (runs[-1][0], lasting)
        elif leading:
            runs.append((at, leading))
    ends = [*(start - 1 for start, _ in runs[1:]), len(columns) - 1]
    found = []
    for (first, leading), last in zip(runs, ends):
        total = sum(counts[first : last + 1], Counter())
        contender = min(leading, key=lambda name: (-_firsts(columns[first : last + 1], name), len(name), name))
        cases = sum(len(column) for column in columns[first : last + 1])
        found.append(Advice(first, last, contender, total[contender], cases, tuple(sorted(leading - {contender}))))
    return found


def _firsts(columns: Sequence[Sequence[Choice]], contender: str) -> int:
    """How often it has the least median itself: decides among those that cannot be told apart."""
    return sum(choice.best.contender == contender for column in columns for choice in column)


def _standing(beaters: list[list[str]]) -> Standing:
    if not all(beaters):
        return Standing("level")
    alone = [name for name in dict.fromkeys(beaters[0]) if all(name in by for by in beaters)]
    if alone:
        return Standing("dominated", tuple(alone))
    return Standing("dominated", tuple(dict.fromkeys(by[-1] for by in beaters)), together=True)


def _beats(a: Cell, b: Cell, cost: str, error: str) -> bool:
    dearer = _median(a, cost) > _median(b, cost) and apart(a, b, cost) is not False
    if dearer or _median(a, error) >= _median(b, error):
        return False
    return apart(a, b, error) is not False


def _against(best: Cell, other: Cell | None, error: str) -> str:
    told = None if other is None else apart(best, other, error)
    if told is None:
        return ""
    if not told:
        return "level"
    return "behind" if best.is_peer else "ahead"


def _median(cell: Cell, figure: str) -> float:
    return cell.estimates[figure].median
