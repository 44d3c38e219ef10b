"""What is drawn, before anything is drawn: series of points with intervals, a front, floors.

The page's inline SVG and the files for papers are made of the same `Chart`.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from fm_core.bench.report.cells import Cell
from fm_core.bench.report.choosing import front, standings
from fm_core.bench.report.quantities import Quantity, quantity, shown
from fm_core.bench.report.tables import spread_text

__all__ = ["PLAIN", "Chart", "Point", "Series", "against_cost", "scaling"]

PLAIN = 0
"""Colour of series that have none of their own."""

MOST = 4
"""Contenders that a note names."""


@frozen
class Point:
    """One cell in a picture.

    Args:
        x, y: Positive numbers.
        low, high: Interval of y; both y where there is none.
        said: Its figure, its interval and where it is.
        on_front: Whether it lies on the Pareto front.
    """

    x: float
    y: float
    low: float
    high: float
    said: str
    on_front: bool = False


@frozen
class Series:
    """The points of one contender, by rising x.

    Args:
        name: Its label.
        points: At least one.
        colour: From 1 on, the same in all pictures of a report; `PLAIN` for none.
        loud: Whether it is to be seen at first sight.
        peer: Whether it is another library's.
    """

    name: str
    points: tuple[Point, ...]
    colour: int
    loud: bool
    peer: bool


@frozen
class Chart:
    """A picture with logarithmic axes.

    Args:
        name: Of its files.
        title: What it shows, in one line.
        x, y: What its axes are.
        series: At least one.
        front: Corners of the Pareto front, by rising x; empty for none.
        floors: What y cannot fall below: a label and its height.
        marks: Places on the x axis worth a tick; empty to choose round numbers.
        notes: What else a reader must know.
        cells: What it was drawn of.
    """

    name: str
    title: str
    x: Quantity
    y: Quantity
    series: tuple[Series, ...]
    front: tuple[tuple[float, float], ...] = ()
    floors: tuple[tuple[str, float], ...] = ()
    marks: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    cells: tuple[Cell, ...] = field(default=(), repr=False, eq=False)

    @property
    def has_peers(self) -> bool:
        return any(one.peer for one in self.series)

    @property
    def told(self) -> str:
        """The picture in words, for those who cannot see it."""
        if not self.front:
            ends = (f"{one.name} ends at {shown(one.points[-1].y, self.y)}" for one in self.series if one.loud)
            return f"{self.title}. {'; '.join(ends)}."
        every = (
            (point.x, f"{one.name}: {point.said}") for one in self.series for point in one.points if point.on_front
        )
        on = [said for _, said in sorted(every)]
        return f"{self.title}. On the Pareto front, the cheapest first: {'; '.join(on)}."


def against_cost(
    problem: str, cells: Sequence[Cell], cost: str, error: str, colours: Mapping[str, int]
) -> Chart | None:
    """Error against cost of all contenders on one problem; None where nothing can be drawn.

    Contenders that are on the front or level with it are loud, the dominated ones are not.
    """
    x, y = quantity(cost), quantity(error)
    of = standings(cells, cost, error)
    best = front(cells, cost, error)
    series = _series(cells, x, y, colours, best, {name for name, stand in of.items() if stand.place != "dominated"})
    if not series:
        return None
    corners = tuple((cell.estimates[cost].median, cell.estimates[error].median) for cell in best)
    return Chart(
        name=_file("solvers", problem, error, cost),
        title=f"{problem}: {y.label} against {x.label}",
        x=x,
        y=y,
        series=series,
        front=tuple((cost, error) for cost, error in corners if cost > 0 and error > 0),
        floors=_floors(cells, y),
        marks=_asked(cells) if cost == "nfe" else (),
        notes=_left_out(cells, x, y),
        cells=tuple(cells),
    )


def scaling(suite: str, problem: str, cells: Sequence[Cell], colours: Mapping[str, int]) -> list[Chart]:
    """How each figure of one problem grows with each setting that varies, as a number, within a contender."""
    charts = []
    for setting in dict.fromkeys(name for cell in cells for name in cell.settings):
        for figure in dict.fromkeys(name for cell in cells for name in cell.estimates):
            y = quantity(figure)
            series = _growing(cells, setting, y, colours)
            if not y.better or not series:
                continue
            charts.append(
                Chart(
                    name=_file(suite, problem, figure, setting),
                    title=f"{problem}: {y.label} against {quantity(setting).label} ({y.better} is better)",
                    x=quantity(setting),
                    y=y,
                    series=series,
                    marks=tuple(sorted({point.x for one in series for point in one.points})),
                    cells=tuple(cells),
                )
            )
    return charts


def _series(
    cells: Sequence[Cell], x: Quantity, y: Quantity, colours: Mapping[str, int], best: list[Cell], loud: set[str]
) -> tuple[Series, ...]:
    points: dict[str, list[Point]] = {}
    peers = {cell.contender for cell in cells if cell.is_peer}
    for cell in cells:
        if cell.status == "ok" and (point := _point(cell, cell.middle(x.name), x, y, cell in best)):
            points.setdefault(cell.contender, []).append(point)
    return tuple(
        Series(name, tuple(sorted(own, key=lambda p: p.x)), colours.get(name, PLAIN), name in loud, name in peers)
        for name, own in points.items()
    )


def _growing(cells: Sequence[Cell], setting: str, y: Quantity, colours: Mapping[str, int]) -> tuple[Series, ...]:
    """A series for each contender and each choice of the other settings, where the setting takes several values."""
    points: dict[tuple[str, str], list[Point]] = {}
    peers = {cell.contender for cell in cells if cell.is_peer}
    for cell in cells:
        value = cell.settings.get(setting)
        number = None if isinstance(value, bool) or not isinstance(value, (int, float)) else float(value)
        if cell.status == "ok" and (point := _point(cell, number, quantity(setting), y)):
            points.setdefault((cell.contender, _others(cell.settings, setting)), []).append(point)
    grown = {key: own for key, own in points.items() if len({point.x for point in own}) > 1}
    several = len({other for _, other in grown}) > 1
    return tuple(
        Series(
            f"{name} ({other})" if several and other else name,
            tuple(sorted(own, key=lambda point: point.x)),
            colours.get(name, PLAIN),
            True,
            name in peers,
        )
        for (name, other), own in grown.items()
    )


def _point(cell: Cell, at: float | None, x: Quantity, y: Quantity, on_front: bool = False) -> Point | None:
    """None where a logarithm has no place for it."""
    found = cell.estimates.get(y.name)
    if at is None or not 0 < at < math.inf or found is None or found.median <= 0:
        return None
    low, high = (found.median if end is None else end for end in (found.low, found.high))
    said = f"{' '.join(filter(None, spread_text(found, y, 'interval')))} at {_with_unit(at, x)}"
    return Point(at, found.median, low if low > 0 else found.median, high, said, on_front)


def _with_unit(value: float, of: Quantity) -> str:
    return shown(value, of) if of.seconds else f"{of.label} {shown(value, of)}"


def _floors(cells: Sequence[Cell], y: Quantity) -> tuple[tuple[str, float], ...]:
    values = [value for cell in cells if y.floor and (value := cell.middle(y.floor))]
    return ((quantity(y.floor).label, statistics.median(values)),) if values else ()


def _asked(cells: Sequence[Cell]) -> tuple[float, ...]:
    asked = {cell.settings.get("nfe") for cell in cells}
    return tuple(sorted(float(n) for n in asked if isinstance(n, (int, float)) and 0 < n < math.inf))


def _left_out(cells: Sequence[Cell], x: Quantity, y: Quantity) -> tuple[str, ...]:
    bad: dict[str, list[str]] = {}
    for cell in cells:
        if cell.status != "ok":
            bad.setdefault(cell.status, []).append(cell.contender)
    said = [f"{status.capitalize()}, not drawn: {_counted(names)}" for status, names in bad.items()]
    zero = [
        cell.contender
        for cell in cells
        if cell.status == "ok" and cell.middle(y.name) == 0 and x.name in cell.estimates
    ]
    return (*said, *([f"Error of exactly 0, not drawn: {_counted(zero)}"] if zero else []))


def _counted(names: Sequence[str]) -> str:
    """Names with how often each occurs, the first few."""
    told = [f"{name} ({names.count(name)}×)" if names.count(name) > 1 else name for name in dict.fromkeys(names)]
    return ", ".join([*told[:MOST], *([f"and {len(told) - MOST} more"] if len(told) > MOST else [])])


def _others(settings: Mapping[str, Any], but: str) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items() if name != but)


def _file(*parts: str) -> str:
    """A file's name that any system takes.

    >>> _file("solvers", "../8 gaussians <b>", "nfe")
    'solvers-8-gaussians-b-nfe'
    """
    return "-".join(plain for part in parts if (plain := re.sub(r"[^\w]+", "-", part).strip("-")))[:120]
