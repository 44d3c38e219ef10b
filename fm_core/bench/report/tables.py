"""Tables of cells: a row each, a column for each setting that varies and each figure, with intervals and statuses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from attrs import frozen

from fm_core.bench.report.cells import Cell
from fm_core.bench.report.quantities import Quantity, quantity, shown
from fm_core.bench.statistics import Estimate

__all__ = ["Column", "Entry", "Spread", "Table", "cell_table", "spread_text", "varying_settings"]

Spread = Literal["interval", "std"]
"""How replicates are told: median [interval], or mean ± standard deviation."""

_WORDS = ("problem", "contender", "group")


@frozen
class Column:
    """A column: its heading, and whether its entries are numbers."""

    label: str
    numeric: bool = False


@frozen
class Entry:
    """What stands in a row under a column.

    Args:
        text: What is read first.
        small: What is read after it, line by line: an interval, a reason, what was published.
        sort: What it is sorted by; empty sorts last.
        mark: A class for its looks.
    """

    text: str
    small: tuple[str, ...] = ()
    sort: str = ""
    mark: str = ""


@frozen
class Table:
    """A table that can be sorted and filtered.

    Args:
        name: Its identifier on the page.
        caption: What it shows.
        columns: Its columns.
        rows: Entries, one for each column.
        constant: Settings that all its rows share, which need no column.
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Entry, ...], ...]
    constant: Mapping[str, str]


def cell_table(name: str, caption: str, cells: Sequence[Cell], spread: Spread) -> Table:
    """All cells of a suite."""
    settings = dict.fromkeys(key for cell in cells for key in cell.settings)
    values = {key: [cell.settings.get(key) for cell in cells] for key in settings}
    varying = varying_settings(cells)
    figures = [quantity(key) for key in dict.fromkeys(key for cell in cells for key in cell.estimates)]
    figures.sort(key=lambda of: of.order)
    rows = tuple(
        (
            *(Entry(word, sort=word) for word in (cell.problem, cell.contender, cell.group)),
            *(_setting(cell.settings.get(key)) for key in varying),
            *(_figure(cell, of, spread) for of in figures),
            _status(cell),
        )
        for cell in cells
    )
    columns = (
        *map(Column, _WORDS),
        *(Column(f"{quantity(key).label} asked" if key == "nfe" else key, _numbers(values[key])) for key in varying),
        *(Column(of.label, True) for of in figures),
        Column("status"),
    )
    constant = {key: _plain(values[key][0]) for key in settings if key not in varying}
    return Table(name, caption, columns, rows, constant)


def varying_settings(cells: Sequence[Cell]) -> list[str]:
    """Names of the settings that are not the same in all cells."""
    names = dict.fromkeys(key for cell in cells for key in cell.settings)
    return [key for key in names if any(cell.settings.get(key) != cells[0].settings.get(key) for cell in cells)]


def spread_text(found: Estimate, of: Quantity, spread: Spread) -> tuple[str, str]:
    """A figure and how sure it is; nothing is said of the latter where there was one seed, or all seeds agree.

    >>> from fm_core.bench.statistics import estimate
    >>> spread_text(estimate([1.0, 2.0, 3.0]), quantity("w2"), "std")
    ('2', '± 1')
    """
    if spread == "std":
        return shown(found.mean, of), "" if not found.std else f"± {shown(found.std, of, 2)}"
    middle = shown(found.median, of)
    if found.low is None or found.high is None or shown(found.low, of) == shown(found.high, of):
        return middle, ""
    return middle, f"[{shown(found.low, of)}, {shown(found.high, of)}]"


def _figure(cell: Cell, of: Quantity, spread: Spread) -> Entry:
    found, published = cell.estimates.get(of.name), _published(cell.notes, of.name)
    text, small = ("–", "") if found is None else spread_text(found, of, spread)
    middle = "" if found is None else repr(found.mean if spread == "std" else found.median)
    said = (small, f"published {published}" if published else "")
    return Entry(text, tuple(filter(None, said)), middle, "number")


def _published(notes: Mapping[str, Any], figure: str) -> str:
    """What a paper says, from a note such as `{"published": {"w2": 0.303, "w2_std": 0.043}}`."""
    published = notes.get("published")
    if not isinstance(published, Mapping) or published.get(figure) is None:
        return ""
    std = published.get(f"{figure}_std")
    return f"{_plain(published[figure])}{'' if std is None else f' ± {_plain(std)}'}"


def _status(cell: Cell) -> Entry:
    seeds = len(cell.records)
    replicates = "1 seed" if seeds == 1 else f"{seeds} seeds"
    small = cell.why if cell.status != "ok" else replicates
    return Entry(cell.status, (small,), f"{cell.status} {seeds}", f"status {cell.status}")


def _setting(value: Any) -> Entry:
    if value is None:
        return Entry("–")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Entry(f"{value:g}", sort=repr(value), mark="number")
    return Entry(_plain(value), sort=_plain(value))


def _numbers(values: Sequence[Any]) -> bool:
    return all(value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) for value in values)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=dict)
