"""Whether two runs rank alike: contenders that both tell apart must stand in the same order.

Two contenders of one block (suite, problem, settings) are told apart by a figure as everywhere (`cells.apart`). Runs
with other seeds say the same of a pair, or nothing; a pair that both tell apart in opposite orders is *reversed*. For
equal contenders that is chance once in 800 times: each run tells them apart once in 20 times, and then in either order.
More than that shows that the intervals promise too much. A pair that one run alone tells apart, and of which the
other's medians stand the other way round, is *doubtful*.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping

from attrs import frozen

from fm_core.bench.records import Record
from fm_core.bench.report.cells import Cell, apart, cells, latest
from fm_core.bench.report.quantities import quantity
from fm_core.bench.statistics import CONFIDENCE

__all__ = ["Ranking", "rankings"]


@frozen
class Ranking:
    """How two runs rank by one figure.

    Args:
        figure: Its name.
        pairs: Pairs of contenders of one block that both runs have, with intervals.
        both: Those that both tell apart.
        once: Those that one alone tells apart.
        reversed: Of `both`, those in opposite orders: "a, b on problem".
        doubtful: Of `once`, those whose medians stand the other way round in the other run.
    """

    figure: str
    pairs: int
    both: int
    once: int
    reversed: tuple[str, ...]
    doubtful: tuple[str, ...]

    @property
    def by_chance(self) -> float:
        """So many pairs would be reversed if all contenders were equal."""
        return self.pairs * (1 - CONFIDENCE) ** 2 / 2


def rankings(before: Iterable[Record], after: Iterable[Record]) -> list[Ranking]:
    """Compares the order of contenders in two runs, by each figure of which less or more is better."""
    a, b = _blocks(before), _blocks(after)
    both = [key for key in a if key in b]
    names = dict.fromkeys(name for key in both for cell in a[key].values() for name in cell.estimates)
    found = [_ranking(name, {key: (a[key], b[key]) for key in both}) for name in names if quantity(name).better]
    return [one for one in found if one.pairs]


def _ranking(figure: str, blocks: Mapping[str, tuple[Mapping[str, Cell], Mapping[str, Cell]]]) -> Ranking:
    pairs = both = once = 0
    reverse: list[str] = []
    doubtful: list[str] = []
    for key, runs in blocks.items():
        shared = [name for name in runs[0] if name in runs[1] and all(figure in run[name].estimates for run in runs)]
        for one, other in itertools.combinations(shared, 2):
            x, y = ((run[one], run[other]) for run in runs)
            told = [apart(*x, figure), apart(*y, figure)]
            if None in told:
                continue
            pairs, both, once = pairs + 1, both + all(told), once + (told[0] is not told[1])
            if any(told) and _less(*x, figure) != _less(*y, figure):
                (reverse if all(told) else doubtful).append(f"{one}, {other} on {key}")
    return Ranking(figure, pairs, both, once, tuple(reverse), tuple(doubtful))


def _less(a: Cell, b: Cell, figure: str) -> bool:
    return a.estimates[figure].median < b.estimates[figure].median


def _blocks(records: Iterable[Record]) -> dict[str, dict[str, Cell]]:
    """Cells by what they are compared within, and contender."""
    found: dict[str, dict[str, Cell]] = {}
    for cell in latest(cells(records)):
        if cell.status == "ok":
            where = f"{cell.problem} {json.dumps(cell.settings, sort_keys=True, default=dict)}"
            found.setdefault(f"{cell.records[0].suite}: {where}", {})[cell.contender] = cell
    return found
