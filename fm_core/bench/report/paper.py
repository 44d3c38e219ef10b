"""The charts as files for papers, SVG with text as text, and PNG: the page's drawing in light colours, on white."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from attrs import frozen
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Affine2D, Transform

from fm_core.bench.report.drawing import Drawing, Label, Line, Place
from fm_core.fit.files import replacing

__all__ = ["FORMATS", "write_figure"]

FORMATS = ("svg", "png")
DOTS = 100
"""Pixels of a drawing in an inch."""

INK, SOFT, RULE, BAND = "#1a1d21", "#555c66", "#d5dae0", "#c9d3df"
COLOURS = ("#666e79", "#0b5cad", "#b3450b", "#0b7048", "#8440b5", "#7d5a00", "#b01e6c", "#0a6b7c", "#4d6b00")
"""Of no contender, then of contenders: the page's (report.css)."""

_STYLE: dict[Any, Any] = {
    "font.size": 7.2,
    "svg.fonttype": "none",
    "svg.hashsalt": "fm",  # the same figures give the same file
    "text.parse_math": False,  # a contender may be called "$"
}


def write_figure(drawing: Drawing, folder: Path) -> list[Path]:
    """Writes a drawing as `NAME.svg` and `NAME.png`, by its chart's name."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{drawing.chart.name}.{form}" for form in FORMATS]
    with replacing(*paths) as temporary, mpl.rc_context(_STYLE):
        figure = _figure(drawing)
        for path in temporary:
            figure.savefig(path, dpi=2 * DOTS, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def _figure(drawing: Drawing) -> Figure:
    figure = Figure(figsize=(drawing.width / DOTS, drawing.height / DOTS))
    pen = _Pen(figure, Affine2D().scale(1 / drawing.width, -1 / drawing.height).translate(0, 1) + figure.transFigure)
    _frame(pen, drawing)
    pen.line(drawing.front, BAND, 5)
    for line in drawing.lines:
        _series(pen, line)
    for line in drawing.lines:
        _label(pen, line.label, _colour(line), "bold" if line.loud else "normal")
    for _, label in drawing.floors:
        _label(pen, label, INK, "normal")
    return figure


@frozen
class _Pen:
    """Draws on a figure in the drawing's pixels, the later above: no axes and no layout, since the places are known."""

    figure: Figure
    pixels: Transform

    @property
    def above(self) -> dict[str, Any]:
        return {"transform": self.pixels, "zorder": len(self.figure.get_children())}

    def line(self, places: Sequence[Place], colour: str, width: float, style: str = "-", opacity: float = 1.0) -> None:
        if places:
            x, y = zip(*places)
            look: dict[str, Any] = {"color": colour, "linewidth": width, "linestyle": style, "alpha": opacity}
            self.figure.add_artist(Line2D(x, y, **look, **self.above))

    def text(self, x: float, y: float, text: str, **look: Any) -> None:
        self.figure.text(x, y, text, **look, **self.above)

    def shapes(self, shapes: Sequence[Sequence[Place]], filled: Sequence[str], colour: str, opacity: float) -> None:
        look: dict[str, Any] = {"facecolors": filled, "edgecolors": colour, "linewidths": 1, "alpha": opacity}
        self.figure.add_artist(PolyCollection(shapes, **look, **self.above))


def _frame(pen: _Pen, drawing: Drawing) -> None:
    left, top, right, bottom = drawing.plot
    for y, text in drawing.y_ticks:
        pen.line(((left, y), (right, y)), RULE, 0.5)
        pen.text(left - 8, y, text, color=SOFT, ha="right", va="center")
    for x, text in drawing.x_ticks:
        pen.line(((x, bottom), (x, bottom + 5)), SOFT, 0.6)
        pen.text(x, bottom + 8, text, color=SOFT, ha="center", va="top")
    for y, _ in drawing.floors:
        pen.line(((left, y), (right, y)), INK, 0.7, ":")
    pen.line(((left, top), (left, bottom), (right, bottom)), SOFT, 0.6)
    pen.text((left + right) / 2, drawing.height - 4, drawing.chart.x.label, color=INK, ha="center", va="bottom")
    pen.text(13, (top + bottom) / 2, drawing.chart.y.label, color=INK, ha="center", va="center", rotation=90)


def _series(pen: _Pen, line: Line) -> None:
    colour = _colour(line)
    opacity = 1.0 if line.loud else 0.75
    pen.line(line.places, colour, 1.3 if line.loud else 0.7, "--" if line.peer else "-", opacity)
    for mark in line.marks if line.loud else ():
        pen.line(((mark.at[0], mark.low), (mark.at[0], mark.high)), colour, 0.9)
    filled = [colour if mark.on_front or not line.loud else "white" for mark in line.marks]
    pen.shapes([mark.shape for mark in line.marks], filled, colour, opacity)


def _label(pen: _Pen, label: Label | None, colour: str, weight: str) -> None:
    if label is not None:
        pen.line(label.leader, colour, 0.4)
        pen.text(*label.at, label.text, color=colour, va="center", weight=weight)


def _colour(line: Line) -> str:
    return COLOURS[line.colour if line.loud else 0]
