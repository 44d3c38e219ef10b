"""Replicates put together: records that differ in their seed alone are one cell, with an estimate of each figure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import evolve, frozen

from fm_core.bench.records import Record
from fm_core.bench.report.quantities import quantity
from fm_core.bench.statistics import Estimate, differ, estimate

__all__ = ["DOUBT", "FLOOR", "Cell", "apart", "by_problem", "cells", "latest"]

FLOOR = "floor"
"""A contender of this name does not compete: its figures are what the others cannot fall below."""

DOUBT = 10
"""Errors below so many times the reference's own say nothing."""

_REFERENCE = "reference_error"

_STATUSES = ("ok", "skipped", "diverged", "failed")


@frozen(eq=False)
class Cell:
    """Records that differ in their seed alone.

    Args:
        records: At least one, by seed.
        estimates: Of each figure that is a finite number in one of them.
    """

    records: tuple[Record, ...]
    estimates: Mapping[str, Estimate]

    @property
    def problem(self) -> str:
        return self.records[0].problem

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.records[0].settings

    @property
    def notes(self) -> Mapping[str, Any]:
        return self.records[0].notes

    @property
    def group(self) -> str:
        return self.records[0].group

    @property
    def contender(self) -> str:
        """Its name, with the library's where that is not in it."""
        first = self.records[0]
        told = first.group == "ours" or first.group.lower() in first.contender.lower()
        return first.contender if told else f"{first.contender} ({first.group})"

    @property
    def is_peer(self) -> bool:
        return self.group != "ours"

    @property
    def status(self) -> str:
        """The worst of its records': one seed that diverged makes the contender none to be taken."""
        return max((record.status for record in self.records), key=_STATUSES.index)

    @property
    def why(self) -> str:
        """How many seeds it befell, and the reasons."""
        bad = [record for record in self.records if record.status == self.status != "ok"]
        reasons = "; ".join(dict.fromkeys(record.why for record in bad if record.why))
        if not bad or len(bad) == len(self.records):
            return reasons
        return f"{len(bad)} of {len(self.records)} seeds{': ' if reasons else ''}{reasons}"

    def middle(self, figure: str) -> float | None:
        """Median of a figure over the seeds; None where no seed has it."""
        found = self.estimates.get(figure)
        return None if found is None else found.median

    def doubt(self, figure: str) -> float:
        """How far a figure may be from the true one: an error by the reference's own, either way."""
        own = self.middle(_REFERENCE) if quantity(figure).floor == _REFERENCE else None
        return own or 0.0


def apart(a: Cell, b: Cell, figure: str) -> bool | None:
    """Whether two cells differ in a figure beyond noise, and beyond what the reference is right to.

    None where there are too few seeds to tell.
    """
    x, y = a.estimates[figure], b.estimates[figure]
    told = differ(x, y)
    return told and abs(x.median - y.median) >= a.doubt(figure) + b.doubt(figure)


def cells(records: Iterable[Record]) -> list[Cell]:
    """The cells of records, in the order in which they first occur; those of floors become figures of the others."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.cell, []).append(record)
    found = [_cell(sorted(group, key=lambda record: record.seed)) for group in groups.values()]
    floors = {_place(cell): cell for cell in found if cell.contender == FLOOR}
    return [_above(cell, floors.get(_place(cell))) for cell in found if cell.contender != FLOOR]


def latest(found: Iterable[Cell]) -> list[Cell]:
    """Of cells that differ in their notes alone, as after a change of the suite, the one that was written last."""
    return list({(cell.contender, cell.group, _place(cell)): cell for cell in found}.values())


def by_problem(found: Iterable[Cell]) -> dict[str, list[Cell]]:
    """The cells of each problem."""
    problems: dict[str, list[Cell]] = {}
    for cell in found:
        problems.setdefault(cell.problem, []).append(cell)
    return problems


def _cell(group: list[Record]) -> Cell:
    names = dict.fromkeys(name for record in group for name in record.figures)
    values = {name: {record.seed: _finite(record.figures.get(name)) for record in group} for name in names}
    there = {name: {s: x for s, x in found.items() if x is not None} for name, found in values.items()}
    return Cell(tuple(group), {name: estimate(own, quantity(name).scale) for name, own in there.items() if own})


def _place(cell: Cell) -> str:
    """Suite, problem and settings: what a floor has in common with the cells it is of."""
    return json.dumps((cell.records[0].suite, cell.problem, cell.settings), sort_keys=True, default=dict)


def _above(cell: Cell, floor: Cell | None) -> Cell:
    if floor is None:
        return cell
    own = {name: floor.estimates[name] for name in cell.estimates if name in floor.estimates}
    return evolve(
        cell, estimates={**cell.estimates, **{below: of for n, of in own.items() if (below := quantity(n).floor)}}
    )


def _finite(value: object) -> float | None:
    """What JSON could not hold is None; and a stranger's suite may have written anything."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
