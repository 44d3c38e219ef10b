"""From a chart to places on a page: logarithmic axes, ticks, markers, and labels that do not cover each other.

All places are in pixels of the SVG's view box, rounded to a tenth.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence

from attrs import evolve, frozen

from fm_core.bench.report.charts import PLAIN, Chart, Point, Series
from fm_core.bench.report.quantities import Quantity, shown
from fm_core.bench.report.scales import log_span, spread, ticks

__all__ = ["Drawing", "Label", "Line", "Mark", "Place", "draw"]

WIDTH, HEIGHT = 710, 400
LEFT, RIGHT, TOP, BOTTOM = 62, 240, 14, 46
LINE = 14
"""Pixels between the middles of two labels."""
LONGEST = 30
"""Characters of a label; the title has the rest."""

Place = tuple[float, float]


@frozen
class Mark:
    """One point: its place, its interval's ends, its shape's corners, and what it says when pointed at."""

    at: Place
    low: float
    high: float
    shape: tuple[Place, ...]
    said: str
    on_front: bool


@frozen
class Label:
    """A text in the margin, and the line that leads to it."""

    text: str
    at: Place
    leader: tuple[Place, ...]


@frozen
class Line:
    """One series: its marks, from the left, its style, and its label where there is room for it.

    `rank` is its place among the lines at their right ends, from the top.
    """

    name: str
    marks: tuple[Mark, ...]
    colour: int
    loud: bool
    peer: bool
    rank: int = 0
    label: Label | None = None

    @property
    def places(self) -> tuple[Place, ...]:
        return tuple(mark.at for mark in self.marks)


@frozen
class Drawing:
    """All that the template needs; `beyond` counts points above the picture, drawn at its edge."""

    chart: Chart
    width: int
    height: int
    plot: tuple[float, float, float, float]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    front: tuple[Place, ...]
    floors: tuple[tuple[float, Label], ...]
    lines: tuple[Line, ...]
    beyond: int

    @property
    def unlabelled(self) -> int:
        return sum(line.label is None for line in self.lines)


def draw(chart: Chart) -> Drawing:
    """Lays out a chart."""
    points = [point for one in chart.series for point in one.points]
    x_span = log_span([point.x for point in points])
    y_span = log_span(_heights(chart))
    axes = _Axes(x_span, y_span)
    floors = [(axes.y(at), f"{name} {shown(at, chart.y, 2)}") for name, at in chart.floors if at > y_span[0]]
    # The dominated ones lie below.
    ordered = sorted(chart.series, key=lambda one: (one.loud, one.colour == PLAIN))
    lines, labelled = _labelled([_line(one, axes) for one in ordered], floors)
    return Drawing(
        chart,
        WIDTH,
        HEIGHT,
        (LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM),
        tuple((axes.x(value), _tick(value, chart.x)) for value in _apart(chart.marks or ticks(x_span), axes)),
        tuple((axes.y(value), _tick(value, chart.y)) for value in ticks(y_span)),
        _stairs([axes.at(*corner) for corner in chart.front]),
        labelled,
        lines,
        sum(point.y > y_span[1] for point in points),
    )


@frozen
class _Axes:
    x_span: tuple[float, float]
    y_span: tuple[float, float]

    def x(self, value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * _share(value, self.x_span), 1)

    def y(self, value: float) -> float:
        """Intervals that reach beyond the axis end where it does."""
        share = min(max(_share(value, self.y_span), 0.0), 1.0)
        return round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share, 1)

    def at(self, x: float, y: float) -> Place:
        return self.x(x), self.y(y)


def _share(value: float, span: tuple[float, float]) -> float:
    low, high = math.log10(span[0]), math.log10(span[1])
    return (math.log10(value) - low) / (high - low)


def _heights(chart: Chart) -> list[float]:
    """What the axis shall hold: points to `_top`, intervals to half a decade beyond, floors to two decades below.

    An interval of two seeds, or a floor at 1e-15, would flatten everything else.
    """
    points = [point for one in chart.series for point in one.points]
    least, most = min(point.y for point in points), _top(chart)
    ends = [
        *(max(min(point.low, most), least / 3) for point in points),
        *(min(point.high, most * 3) for point in points),
    ]
    return [least, most, *ends, *(height for _, height in chart.floors if height > least / 100)]


def _top(chart: Chart) -> float:
    """The greatest y, but a decade above those that matter: one dominated contender that explodes flattens no other.

    Where that is below most points, as where all that matters is rounding, it is the middle one of them.
    """
    points = [(point.y, one.loud) for one in chart.series for point in one.points]
    every, loud = [y for y, _ in points], [y for y, matters in points if matters]
    return max(min(max(every), 10 * max(loud, default=math.inf)), statistics.median_high(every))


def _line(one: Series, axes: _Axes) -> Line:
    places = [axes.at(point.x, point.y) for point in one.points]
    marks = tuple(_mark(point, at, one, axes) for point, at in zip(one.points, places))
    return Line(one.name, marks, one.colour, one.loud, one.peer)


def _mark(point: Point, at: Place, one: Series, axes: _Axes) -> Mark:
    size = 4.2 if one.loud else 2.2
    shape = _SHAPES[one.colour % len(_SHAPES)] if one.loud else _SHAPES[0]
    corners = tuple((round(at[0] + size * x, 1), round(at[1] + size * y, 1)) for x, y in shape)
    return Mark(at, axes.y(point.low), axes.y(point.high), corners, point.said, point.on_front)


def _ring(corners: int, turn: float) -> list[Place]:
    """Corners of a regular polygon, the first at `turn` of a full turn."""
    angles = [2 * math.pi * (k / corners + turn) for k in range(corners)]
    return [(math.cos(angle), math.sin(angle)) for angle in angles]


_SHAPES = (_ring(16, 0), _ring(4, 0.125), _ring(3, -0.25), _ring(4, 0), _ring(3, 0.25), _ring(5, -0.25))
"""Disc, square, triangle, diamond, triangle downwards, pentagon: contenders are told apart without colours."""


def _labelled(
    lines: Sequence[Line], floors: Sequence[tuple[float, str]]
) -> tuple[tuple[Line, ...], tuple[tuple[float, Label], ...]]:
    """Lines and floors with labels in the margin: of all lines, or of the loud alone where all are too many."""
    top, bottom = TOP + LINE / 2, HEIGHT - BOTTOM
    room = int((bottom - top) / LINE) + 1 - len(floors)
    falling = sorted(range(len(lines)), key=lambda i: (lines[i].marks[-1].at[1], not lines[i].loud))
    named = falling if len(lines) <= room else [i for i in falling if lines[i].loud][-room:]
    ends = [*((WIDTH - RIGHT - 6, y) for y, _ in floors), *(lines[i].marks[-1].at for i in named)]
    heights = spread([y for _, y in ends], LINE, top, bottom)
    texts = [*(text for _, text in floors), *(_short(lines[i].name) for i in named)]
    labels = [_label(*of) for of in zip(texts, ends, heights)]
    own = dict(zip(named, labels[len(floors) :]))
    ranked = ((i, evolve(lines[i], rank=rank, label=own.get(i))) for rank, i in enumerate(falling, 1))
    return tuple(line for _, line in sorted(ranked)), tuple((y, label) for (y, _), label in zip(floors, labels))


def _label(text: str, end: Place, height: float) -> Label:
    right, (x, y) = WIDTH - RIGHT, end
    leader = ((x + 6, y), (max(right + 2, x + 6), y), (right + 16, round(height, 1)))
    return Label(text, (right + 20, round(height, 1)), leader)


def _short(name: str) -> str:
    """A name that fits: of options that are too long their values alone, and at last no more than its ends.

    >>> _short("diffusers_dpmpp(order=2, karras=true)"), _short("heun(order=2)")
    ('diffusers_dpmpp(2, karras)', 'heun(order=2)')
    """
    for long, short in ((r"=true\b", ""), (r"\w+=", "")):
        name = name if len(name) <= LONGEST else re.sub(long, short, name)
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}…{name[-8:]}"


def _apart(values: Sequence[float], axes: _Axes) -> list[float]:
    """Those whose labels do not touch, from the left."""
    found: list[float] = []
    for value in sorted(values):
        if not found or axes.x(value) - axes.x(found[-1]) >= 22:
            found.append(value)
    return found


def _tick(value: float, of: Quantity) -> str:
    """Powers of ten as such, the rest in plain digits.

    >>> from fm_core.bench.report.quantities import quantity
    >>> [_tick(value, quantity("error")) for value in (1e-4, 0.5, 2e-5)]
    ['10⁻⁴', '0.5', '2·10⁻⁵']
    """
    if of.seconds or 1e-3 < value < 1e4:
        return shown(value, of)
    mantissa, exponent = f"{value:.0e}".split("e")
    power = f"10{str(int(exponent)).translate(_RAISED)}"
    return power if mantissa == "1" else f"{mantissa}·{power}"


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _stairs(corners: Sequence[Place]) -> tuple[Place, ...]:
    """What can be had for at most so much: down at each corner, level until the next, and on to the right."""
    if not corners:
        return ()
    steps = [corners[0]]
    for x, y in corners[1:]:
        steps += [(x, steps[-1][1]), (x, y)]
    return (*steps, (WIDTH - RIGHT, steps[-1][1]))
