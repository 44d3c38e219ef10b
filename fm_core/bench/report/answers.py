"""The first thing to be read: whom to take, for each problem at each budget, or in each figure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import evolve, frozen

from fm_core.bench.contenders import in_python
from fm_core.bench.orders import Order, sound
from fm_core.bench.report.cells import Cell, by_problem
from fm_core.bench.report.choosing import Advice, Choice, Tally, advise, affordable, choose, tally, usable
from fm_core.bench.report.quantities import Quantity, number, quantity, shown
from fm_core.bench.report.scales import ticks
from fm_core.bench.report.tables import varying_settings

__all__ = ["Answers", "error_of", "for_solvers", "in_each"]

MOST_BUDGETS = 8
"""Columns of an answer."""

MOST_FIGURES = 4
"""Figures that advice is given by."""

MOST_NAMED = 3
"""Problems that a sentence names."""

CALLS = " calls"
"""What follows the number in a heading of network calls."""


@frozen
class Answers:
    """Which contender to take, for each problem at each budget.

    Args:
        title: The question.
        of: What is least.
        columns: Headings: budgets, or what is least in each.
        rows: Problems with the choices.
        budgets: Whether neighbouring columns are one question at more and less cost.
    """

    title: str
    of: tuple[Quantity, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Choice | None, ...]], ...]
    budgets: bool = True

    @property
    def tally(self) -> Tally:
        return tally([choice for _, choices in self.rows for choice in choices if choice])

    @property
    def advice(self) -> list[Advice]:
        """Whom to take over which columns: at all budgets, or by the first few figures."""
        every = zip(*(choices for _, choices in self.rows))
        columns = [[choice for choice in column if choice] for column in every]
        if self.budgets:
            return advise(columns)
        alone = ((at, one) for at, column in enumerate(columns[:MOST_FIGURES]) for one in advise([column]))
        return [evolve(one, first=at, last=at) for at, one in alone]

    @property
    def doubtful(self) -> str:
        """Where the least error is so near the reference's that it may be none; empty where it is nowhere so."""
        cases = [problem for problem, choices in self.rows for choice in choices if choice and choice.doubtful]
        if not cases:
            return ""
        named = list(dict.fromkeys(cases))
        several = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
        return (
            f"In {len(cases)} of {self.tally.places} cases the least error is below twice the reference's own, so that "
            f"nothing better could be seen: {', '.join(named[:MOST_NAMED])}{several}."
        )

    def where(self, one: Advice) -> str:
        """The columns that an advice is for: "5 to 20 calls"."""
        first, last = self.columns[one.first], self.columns[one.last]
        return first if first == last else f"{first.removesuffix(CALLS)} to {last}"

    def in_python(self, one: Advice) -> str:
        """How the advised contender comes into a pipeline; empty where it has no name to be typed."""
        cells = [choice.best for _, row in self.rows for choice in row[one.first : one.last + 1] if choice]
        spent = {cell.middle("nfe") for cell in cells if cell.contender == one.contender}
        return in_python(one.contender, {calls for calls in spent if calls is not None})

    @property
    def beside_peers(self) -> str:
        """How our best stands to other libraries'; empty without them."""
        found = self.tally
        if not found.against:
            return ""
        text = f"less error in {found.against['ahead']} cases, no difference in {found.against['level']}, more in "
        text += str(found.against["behind"])
        if found.ratio is not None:
            text += f"; in the median case their error is {number(found.ratio, 2)} times ours"
        return f"Our best beside the best of other libraries: {text}."


def for_solvers(found: Sequence[Cell], measured: Iterable[Order]) -> list[Answers]:
    """What the solvers' cells come to: by network calls, then by time and by distance; none where nothing is "ok".

    Args:
        found: Of the suite.
        measured: Orders: a solver that does not keep its own is not named.
    """
    error, problems = error_of(found), by_problem(sound(found, measured))
    asked = [("nfe", error), ("sample_s", error), ("nfe", "distance")]
    answers = [at_budgets(problems, cost, figure) for cost, figure in dict.fromkeys(asked)]
    return [one for one in answers if one.tally.places]


def error_of(found: Sequence[Cell]) -> str:
    """The figure that solvers are compared by: where none is judged path by path, the distance of their samples."""
    return "error_median" if usable(found, "error_median") else "distance"


def at_budgets(problems: Mapping[str, list[Cell]], cost: str, error: str) -> Answers:
    """The least error on each problem at each budget that was asked for, or of round times.

    A problem that was asked for fewer calls alone has no answer to more.
    """
    everything = [cell for own in problems.values() for cell in usable(own, cost, error)]
    budgets = _calls(everything) if cost == "nfe" else _times(everything, cost)
    of, what = quantity(error), quantity(cost)
    return Answers(
        f"Least {of.label} for at most so many network calls (NFE)"
        if cost == "nfe"
        else f"Least {of.label} within a {what.label}",
        (of,) * len(budgets),
        tuple(shown(budget, what) + (CALLS if cost == "nfe" else "") for budget in budgets),
        tuple((name, tuple(_row(own, cost, error, budgets))) for name, own in problems.items()),
    )


def _row(own: Sequence[Cell], cost: str, error: str, budgets: Iterable[float]) -> Iterator[Choice | None]:
    """A problem's choice at each budget."""
    most = max(_asked(own), default=math.inf) if cost == "nfe" else math.inf
    for budget in budgets:
        yield None if budget > most else choose(affordable(own, cost, budget), error)


def _calls(everything: Sequence[Cell]) -> list[float]:
    """The budgets asked for, so many at most, evenly among them."""
    asked = sorted(_asked(everything) or {cell.estimates["nfe"].median for cell in everything})
    if len(asked) <= MOST_BUDGETS:
        return asked
    return [asked[round(k * (len(asked) - 1) / (MOST_BUDGETS - 1))] for k in range(MOST_BUDGETS)]


def _asked(found: Iterable[Cell]) -> set[float]:
    """The network calls that cells were asked for."""
    asked = (cell.settings.get("nfe") for cell in found)
    return {float(n) for n in asked if isinstance(n, (int, float)) and math.isfinite(n)}


def _times(everything: Sequence[Cell], cost: str) -> list[float]:
    """Round times from the quickest cell's to the slowest's."""
    times = [cell.estimates[cost].median for cell in everything]
    positive = [time for time in times if time > 0]
    return ticks((min(positive), 2 * max(positive))) if positive else []


def in_each(found: Sequence[Cell]) -> Answers:
    """The best in each figure, among those that were given the same."""
    varying = varying_settings(found)
    rows: dict[tuple[str, str], list[Cell]] = {}
    for cell in found:
        given = ", ".join(f"{key} {cell.settings.get(key)}" for key in varying)
        rows.setdefault((cell.problem, given), []).append(cell)
    names = dict.fromkeys(name for cell in found for name in cell.estimates)
    figures = sorted((of for name in names if (of := quantity(name)).better == "lower"), key=lambda of: of.order)
    return Answers(
        "Least of each figure",
        tuple(figures),
        tuple(of.label for of in figures),
        tuple(
            (f"{problem} ({given})" if given else problem, tuple(choose(own, of.name) for of in figures))
            for (problem, given), own in rows.items()
        ),
        budgets=False,
    )
