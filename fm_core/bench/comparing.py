"""What changed beyond noise between two folders of results, and whether they may be compared at all.

Cells are matched by all that was asked for; those left that differ in their notes alone, as where a solver declares
another order now, are matched too, and flagged. A change is beyond noise as `statistics.differ` says: seed by seed
where both folders have a cell's seeds, whose draws are the same, else by disjoint intervals. Results of other machines,
versions, commits and seeds are compared too, and flagged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from attrs import evolve, frozen

from fm_core.bench.ranking import Ranking, rankings
from fm_core.bench.records import Record, Results, Run
from fm_core.bench.report.cells import Cell
from fm_core.bench.report.quantities import quantity
from fm_core.bench.report.sources import seeds_told
from fm_core.bench.statistics import Estimate, differ, estimate, ratio

__all__ = ["Change", "Comparison", "compare"]

Verdict = Literal["better", "worse", "no difference", "too few seeds"]


@frozen
class Change:
    """A figure of a cell, before and after.

    Args:
        record: One of the cell's records.
        figure: Name of the figure.
        before: In the first folder.
        after: In the second.
        ratio: After over before, with its interval where seeds are shared.
        verdict: "better", "worse" or "no difference" beyond noise; "too few seeds" where nothing can be told.
    """

    record: Record
    figure: str
    before: Estimate
    after: Estimate
    ratio: Estimate
    verdict: Verdict


@frozen
class Comparison:
    """Two folders of results, side by side.

    Args:
        changes: Every figure that both have, those that changed first, the largest ratio first.
        status: Cells whose status changed, on a seed of both or, with other seeds, in the worst of them: before, after,
            and the reason.
        gone: Cells of the first folder alone.
        new: Cells of the second alone.
        rankings: Whether contenders stand in the same order in both.
        flags: What differs between the machines, versions, commits and seeds.
    """

    changes: tuple[Change, ...]
    status: tuple[tuple[Record, str, str, str], ...]
    gone: tuple[Record, ...]
    new: tuple[Record, ...]
    rankings: tuple[Ranking, ...]
    flags: tuple[str, ...]

    @property
    def changed(self) -> tuple[Change, ...]:
        """The figures that changed beyond noise."""
        return tuple(change for change in self.changes if change.verdict in ("better", "worse"))


def compare(before: Results, after: Results) -> Comparison:
    """Compares two folders of results, as `records.read` gives them."""
    a, b = _cells(before.records), _cells(after.records)
    both = _matched(a, b)
    changes = [change for x, y in both for change in _changes(a[x], b[y])]
    changes.sort(key=lambda change: (change.verdict not in ("better", "worse"), -_size(change)))
    return Comparison(
        changes=tuple(changes),
        status=tuple(told for x, y in both for told in _status(a[x], b[y])),
        gone=tuple(_any(a[key]) for key in a.keys() - {x for x, _ in both}),
        new=tuple(_any(b[key]) for key in b.keys() - {y for _, y in both}),
        rankings=tuple(rankings(before.records, after.records)),
        flags=(
            *_flags(before.runs, after.runs),
            *_other_seeds([(a[x], b[y]) for x, y in both]),
            *_other_notes([(_any(a[x]), _any(b[y])) for x, y in both if x != y]),
            *([f"unreadable lines: {before.torn} → {after.torn}"] if before.torn or after.torn else []),
        ),
    )


def _matched(a: Mapping[str, Mapping[int, Record]], b: Mapping[str, Mapping[int, Record]]) -> list[tuple[str, str]]:
    """Keys of the cells that are one: of all that was asked for, then, of those left, of all but the notes."""
    found = [(key, key) for key in a if key in b]
    left = {_any(b[key]).place: key for key in b if key not in a}
    return found + [(key, left.pop(place)) for key in a if key not in b and (place := _any(a[key]).place) in left]


def _cells(records: Iterable[Record]) -> dict[str, dict[int, Record]]:
    cells: dict[str, dict[int, Record]] = {}
    for record in records:
        cells.setdefault(record.cell, {})[record.seed] = record
    return cells


def _any(cell: Mapping[int, Record]) -> Record:
    return next(iter(cell.values()))


def _changes(a: Mapping[int, Record], b: Mapping[int, Record]) -> Iterator[Change]:
    for name in dict.fromkeys(name for record in a.values() for name in record.figures):
        better = quantity(name).better
        x, y = (
            {s: v for s, r in cell.items() if r.status == "ok" and isinstance(v := r.figures.get(name), int | float)}
            for cell in (a, b)
        )
        if not better or not x or not y:
            continue
        before, after = (estimate(values, quantity(name).scale) for values in (x, y))
        change, changed = _ratio(before, after), differ(before, after)
        verdict: Verdict = "too few seeds" if changed is None else "no difference"
        if changed:
            verdict = "better" if (change.median < 1) == (better == "lower") else "worse"
        yield Change(_any(b), name, before, after, change, verdict)


def _ratio(before: Estimate, after: Estimate) -> Estimate:
    """After over before: seed by seed where enough are shared, else of the medians, with no interval."""
    relative = (after.median - before.median) / abs(before.median) if before.median else math.inf
    return ratio(before, after) or evolve(after, median=1 + relative, low=None, high=None, by_seed={})


def _size(change: Change) -> float:
    return max(change.ratio.median, 1 / change.ratio.median) if change.ratio.median > 0 else float("inf")


def _status(a: Mapping[int, Record], b: Mapping[int, Record]) -> Sequence[tuple[Record, str, str, str]]:
    """What changed on the seeds that both have; where nothing did, of the cells as a whole: they may have others."""
    shared = [(a[seed], record) for seed, record in b.items() if seed in a]
    changed = [(y, x.status, y.status, y.why or x.why) for x, y in shared if x.status != y.status]
    before, after = (Cell(tuple(cell.values()), {}) for cell in (a, b))
    if changed or before.status == after.status:
        return changed
    record = next(one for one in b.values() if one.status == after.status)
    return [(record, before.status, after.status, after.why or before.why)]


def _flags(a: Mapping[str, Run], b: Mapping[str, Run]) -> Iterator[str]:
    for what, of in (("machine", "machine"), ("versions", "versions"), ("git", "git")):
        x, y = _merged(a, of), _merged(b, of)
        for key in dict.fromkeys([*x, *y]):
            if x.get(key) != y.get(key):
                yield f"{what}: {key} {_said(x.get(key))} → {_said(y.get(key))}"


def _other_seeds(shared: Sequence[tuple[Mapping[int, Record], Mapping[int, Record]]]) -> Iterator[str]:
    """Whether cells that both folders have are of other seeds: those are not compared one by one."""
    other = [pair for pair in shared if pair[0].keys() != pair[1].keys()]
    before, after = ({seed for pair in other for seed in pair[side]} for side in (0, 1))
    if other:
        yield f"seeds: {seeds_told(before)} → {seeds_told(after)}"


def _other_notes(pairs: Sequence[tuple[Record, Record]]) -> Iterator[str]:
    """What differs in the notes of cells that were measured in both folders."""
    found: dict[str, list[Record]] = {}
    for a, b in pairs:
        if a.status == b.status == "ok":
            for name in dict.fromkeys([*a.notes, *b.notes]):
                x, y = a.notes.get(name, "not there"), b.notes.get(name, "not there")
                if x != y:
                    found.setdefault(f"{name} {x} → {y}", []).append(b)
    for change, records in found.items():
        named = ", ".join(dict.fromkeys(record.contender for record in records))
        yield f"notes: {change} ({named})"


def _merged(runs: Mapping[str, Run], of: str) -> dict[str, tuple[Any, ...]]:
    """All values that runs have under a name, in order."""
    found: dict[str, tuple[Any, ...]] = {}
    for run in runs.values():
        for key, value in getattr(run, of).items():
            before = found.get(key, ())
            found[key] = before if value in before else (*before, value)
    return found


def _said(values: tuple[Any, ...] | None) -> str:
    return " and ".join(map(str, values)) if values else "not there"
