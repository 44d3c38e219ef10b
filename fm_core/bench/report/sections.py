"""What the page says of each suite: the answer, pictures of each problem, and tables."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from attrs import evolve, frozen

from fm_core.bench import orders
from fm_core.bench.orders import Order, Slope
from fm_core.bench.records import Results
from fm_core.bench.report.answers import Answers, error_of, for_solvers, in_each
from fm_core.bench.report.cells import Cell, by_problem, cells, latest
from fm_core.bench.report.charts import Chart, against_cost, scaling
from fm_core.bench.report.choosing import PLACES, Standing, standings
from fm_core.bench.report.quantities import Quantity, quantity
from fm_core.bench.report.sources import Origin, origin
from fm_core.bench.report.tables import Table, cell_table

__all__ = ["Contender", "Problem", "Section", "sections"]

COLOURS = 8
"""So many contenders have a colour of their own."""

_TITLES = {
    "solvers": "Solvers",
    "orders": "Orders of convergence",
    "methods": "Training methods",
    "throughput": "Throughput",
    "micro": "Micro-benchmarks",
}


@frozen
class Contender:
    """How a contender fares on one problem."""

    name: str
    group: str
    by_cost: tuple[tuple[Quantity, Standing | None], ...]
    order: Order
    slope: Slope


@frozen
class Problem:
    """One problem's pictures, and how the contenders fare on it.

    Args:
        name: Of the problem.
        reference_error: How far the reference may be from the truth; None where errors have none.
        charts: Its pictures.
        contenders: How each fares.
        origin: Where the figures come from.
    """

    name: str
    reference_error: float | None
    charts: tuple[Chart, ...]
    contenders: tuple[Contender, ...]
    origin: Origin


@frozen
class Section:
    """What is said of one suite.

    Args:
        suite, title: Its name, and in words.
        answers: Whom to take; the first is the one that matters.
        problems: Those that have pictures.
        table: All its cells.
        origin: Where they come from.
        colours: Of contenders.
        contenders: Their names.
        orders: Of its solvers, declared and measured.
        outdated: How many cells others have taken the place of, which differ from them in their notes alone.
    """

    suite: str
    title: str
    answers: tuple[Answers, ...]
    problems: tuple[Problem, ...]
    table: Table
    origin: Origin
    colours: Mapping[str, int]
    contenders: tuple[str, ...]
    orders: tuple[Order, ...]
    outdated: int


def sections(results: Results) -> list[Section]:
    """A section for each suite that has records, in the order of the suites, strangers' last."""
    suites = dict.fromkeys([*_TITLES, *(record.suite for record in results.records)])
    found = [_section(suite, results) for suite in suites if results.of(suite)]
    taken: set[str] = set()
    return [evolve(one, problems=tuple(_named(problem, taken) for problem in one.problems)) for one in found]


def _named(problem: Problem, taken: set[str]) -> Problem:
    """Problems of like names do not overwrite each other's files, on any file system."""
    charts = []
    for chart in problem.charts:
        names = itertools.chain([chart.name], (f"{chart.name}-{n}" for n in itertools.count(2)))
        charts.append(evolve(chart, name=next(name for name in names if name.lower() not in taken)))
        taken.add(charts[-1].name.lower())
    return evolve(problem, charts=tuple(charts))


def _section(suite: str, results: Results) -> Section:
    records = results.of(suite)
    everything = cells(records)
    found = latest(everything)
    problems, error = by_problem(found), error_of(found)
    if suite == "solvers":
        answers = for_solvers(found, orders.orders(cells(results.of(orders.SUITE))))
    else:
        answers = [one for one in [in_each(found)] if one.tally.places] if suite == "methods" else []
    colours = _colours(answers, found)
    pictured = (
        ()
        if suite in ("methods", "micro", orders.SUITE)
        else tuple(_problem(suite, name, own, error, colours, results) for name, own in problems.items())
    )
    return Section(
        suite,
        _TITLES.get(suite, suite),
        tuple(answers),
        tuple(one for one in pictured if one.charts),
        cell_table(suite, f"All figures of {suite}", everything, "std" if suite == "methods" else "interval"),
        origin(records, results.runs),
        colours,
        tuple(dict.fromkeys(cell.contender for cell in found)),
        tuple(orders.orders(found)) if suite == orders.SUITE else (),
        len(everything) - len(found),
    )


def _colours(answers: Sequence[Answers], found: Iterable[Cell]) -> dict[str, int]:
    """Colours to those that are taken most, then to others as they come."""
    winners = [name for one in answers for name, _ in one.tally.taken]
    names = dict.fromkeys([*winners, *(cell.contender for cell in found)])
    return {name: colour for colour, name in enumerate(list(names)[:COLOURS], 1)}


def _problem(
    suite: str, name: str, own: list[Cell], error: str, colours: Mapping[str, int], results: Results
) -> Problem:
    records = [record for cell in own for record in cell.records]
    if suite != "solvers":
        return Problem(name, None, tuple(scaling(suite, name, own, colours)), (), origin(records, results.runs))
    axes = [("nfe", error), ("sample_s", error), *([("nfe", "distance")] if error != "distance" else [])]
    charts = [against_cost(name, own, cost, of, colours) for cost, of in axes]
    places = {cost: standings(own, cost, error) for cost in ("nfe", "sample_s")}
    measured = {one.solver: one for one in orders.orders(cells(results.of(orders.SUITE)))}
    slopes = orders.slopes(own)
    contenders = (
        Contender(
            title,
            cell.group,
            tuple((quantity(cost), of.get(title)) for cost, of in places.items()),
            measured.get(str(cell.notes.get("solver")), Order(title, _declared(cell), None, "not measured")),
            slopes[title],
        )
        for title, cell in {cell.contender: cell for cell in own}.items()
    )
    right_to = max((off for cell in own if (off := cell.middle("reference_error"))), default=None)
    drawn = tuple(chart for chart in charts if chart)
    return Problem(name, right_to, drawn, tuple(sorted(contenders, key=_place)), origin(records, results.runs))


def _place(one: Contender) -> int:
    """Those on the front by network calls come first, those that have no place last."""
    (_, standing), *_ = one.by_cost
    return len(PLACES) if standing is None else PLACES.index(standing.place)


def _declared(cell: Cell) -> float | None:
    order = cell.notes.get("order")
    return order if isinstance(order, (int, float)) else None
