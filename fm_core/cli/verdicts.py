"""What benchmarks come to, on the terminal: which solver to take at which budget, and what changed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fm_core.bench.comparing import Change, Comparison
from fm_core.bench.orders import SUITE as ORDERS, orders, told
from fm_core.bench.ranking import Ranking
from fm_core.bench.records import RESULTS, Record, Results
from fm_core.bench.report.answers import Answers, for_solvers
from fm_core.bench.report.cells import cells, latest
from fm_core.bench.report.choosing import Choice
from fm_core.bench.report.quantities import number, quantity, shown
from fm_core.bench.statistics import FEWEST

__all__ = ["show_comparison", "show_results"]

LEVEL = 3
"""Contenders named beside the best, where no difference was found."""

COLOURS = {"better": "green", "worse": "red", "no difference": "dim", "too few seeds": "dim"}


def show_results(to: Console, results: Results) -> None:
    """Prints what to take, and what did not run."""
    measured = orders(cells(results.of(ORDERS)))
    for found in for_solvers(latest(cells(results.of("solvers"))), measured)[:1]:
        _solvers(to, found)
    if broken := [one.solver for one in measured if one.kept is False]:
        what = f"not named, since they show less than the order that they declare: {', '.join(broken)}"
        to.print(what, style="red", markup=False, highlight=False, soft_wrap=True)
    if measured:
        to.print(told(measured), markup=False, highlight=False, soft_wrap=True)
    others = [record for record in results.records if record.suite not in ("solvers", ORDERS)]
    for suite in dict.fromkeys(record.suite for record in others):
        count = sum(record.suite == suite for record in others)
        to.print(f"{suite}: {count} {'row' if count == 1 else 'rows'}, in the report", highlight=False)
    _troubles(to, results)
    if results.torn:
        lines = "1 line" if results.torn == 1 else f"{results.torn} lines"
        be = "is" if results.torn == 1 else "are"
        to.print(f"{lines} of {RESULTS} could not be read and {be} left out.", style="yellow", highlight=False)


def _solvers(to: Console, found: Answers) -> None:
    to.print(f"[bold]{escape(found.title)}[/]", highlight=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("problem", *found.columns):
        table.add_column(heading, overflow="fold")  # a name that is cut cannot be typed
    for problem, row in found.rows:
        table.add_row(escape(problem), *map(_told, row))
    to.print(table)
    if any(choice.judged for _, row in found.rows for choice in row if choice):
        why, note = "the best, or level with the best,", "“=” marks those from which no difference was found."
    else:
        why, note = "the least error", f"Fewer than {FEWEST} seeds, which may be chance: --seeds 5 tells."
    for one in found.advice:
        cases = f"{why} in {one.times} of {one.cases} cases (problem × budget)."
        to.print(f"{found.where(one)}: take [bold]{escape(one.contender)}[/], {cases}", highlight=False)
        if typed := found.in_python(one):
            to.print(f"    in Python: {typed}", markup=False, highlight=False, soft_wrap=True)
    for line in (found.doubtful, found.beside_peers, note if found.advice else ""):
        if line:
            to.print(line, markup=False, highlight=False)


def _told(choice: Choice | None) -> str:
    if choice is None:
        return "–"
    level = [f"= {escape(name)}" for name in choice.level[:LEVEL]]
    if len(choice.level) > LEVEL:
        level.append(f"= {len(choice.level) - LEVEL} more")
    return "\n".join([f"[bold]{escape(choice.best.contender)}[/] {number(choice.value.median, 2)}", *level])


def _troubles(to: Console, results: Results) -> None:
    """Rows asked for that are not "ok": a line for each status and reason, and for each library not installed."""
    found: dict[tuple[str, str], list[Record]] = {}
    for record in results.records:
        if record.status != "ok" and (results.asked is None or record.key in results.asked):
            lacking = _LACKING.search(record.why)
            reason = lacking[0] if lacking else re.sub(r"\d+", "#", record.why)
            found.setdefault((record.status, reason), []).append(record)
    for (status, _), records in found.items():
        style = "yellow" if status != "failed" else "red"
        to.print(f"{status}: {_trouble(records)}", style=style, markup=False, highlight=False, soft_wrap=True)


_LACKING = re.compile(
    r"(?P<library>\S+) is not installed\b(?:(?!\. ).)*?(?P<how>pip install (?:[^\s,;.]|\.(?=\S)| (?=\S))+)"
)
"""What a part says whose library is missing, however deep in its message, and what installs it."""


def _trouble(records: Sequence[Record]) -> str:
    """Whom one trouble befell, and why."""
    why, *rest = records[0].why.splitlines() or [""]
    if why.endswith(":") and rest:
        why += f" {rest[0].strip()}"
    if lacking := _LACKING.search(why):
        names = dict.fromkeys(record.contender for record in records)
        several = f"{len(names)} contenders" if len(names) > 1 else next(iter(names))
        return f"{lacking['library']} is not installed ({several}): {lacking['how']}"
    where = dict.fromkeys(f"{record.contender} on {record.problem}" for record in records)
    several = f" and {len(where) - 1} more" if len(where) > 1 else ""
    return f"{next(iter(where))}{several}: {why}"


def show_comparison(to: Console, found: Comparison, *, every: bool) -> None:
    """Prints what changed beyond noise."""
    for flag in found.flags:
        to.print(f"not the same {flag}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    for record, before, after, why in found.status:
        line = f"{record.problem} · {record.contender} {record.settings}, seed {record.seed}: {before} → {after}: {why}"
        to.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    changes = found.changes if every else found.changed
    if changes:
        to.print(_changes(changes))
    total, changed = len(found.changes), len(found.changed)
    to.print(f"{changed} of {total} figures changed beyond noise.", highlight=False)
    for ranking in found.rankings:
        style = "red" if len(ranking.reversed) > ranking.by_chance else None
        to.print(_ranked(ranking), style=style, markup=False, highlight=False)
    for name, records in (("only before", found.gone), ("only after", found.new)):
        if records:
            to.print(f"{name}: {_counted(records)}", markup=False, highlight=False)


def _counted(records: Sequence[Record]) -> str:
    """How many cells, whose, and on which problems."""
    contenders, problems = (_first({getattr(one, of) for one in records}) for of in ("contender", "problem"))
    return f"{len(records)} {'cell' if len(records) == 1 else 'cells'} ({contenders} on {problems})"


def _first(names: Iterable[str]) -> str:
    """The first few in the alphabet."""
    every = sorted(names)
    return ", ".join(every[:LEVEL]) + (f" and {len(every) - LEVEL} more" if len(every) > LEVEL else "")


def _ranked(found: Ranking) -> str:
    """In words, whether two runs rank alike."""
    order = f"{found.both} of {found.pairs} pairs apart in both runs, all in one order"
    if not found.both:
        order = f"none of {found.pairs} pairs is apart in both runs, so there are no orders to compare"
    elif found.reversed:
        chance = f"by chance up to {number(found.by_chance, 1)} would be"
        order = f"{found.both} of {found.pairs} pairs apart in both runs, {len(found.reversed)} in opposite orders "
        order += f"({chance}): {found.reversed[0]}"
    once = f"{found.once} apart in one run alone"
    doubt = f", {len(found.doubtful)} of them the other way round in the other" if found.doubtful else ""
    label = quantity(found.figure).label
    return f"ranking by {label}: {order}; {once}{doubt}."


def _changes(changes: Sequence[Change]) -> Table:
    table = Table("problem", "contender", "settings", "figure", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("before", "after", "after / before"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for change in changes:
        record, of = change.record, quantity(change.figure)
        table.add_row(
            escape(record.problem),
            escape(record.contender),
            ", ".join(f"{key} {value}" for key, value in record.settings.items()),
            of.label,
            shown(change.before.median, of),
            shown(change.after.median, of),
            str(change.ratio),
            f"[{COLOURS[change.verdict]}]{change.verdict}[/]",
        )
    return table
