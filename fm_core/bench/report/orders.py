"""Orders of convergence: what a solver declares, and what its errors show."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from fm_core.bench.report.cells import Cell
from fm_core.bench.report.choosing import usable
from fm_core.bench.statistics import order

__all__ = ["Order", "measured_orders"]


@frozen
class Order:
    """Order of a contender on one problem.

    Args:
        declared: What the solver says of itself; None where nothing is known.
        measured: Slope over the finest cells; None where there are too few.
    """

    declared: float | None
    measured: float | None


def measured_orders(cells: Sequence[Cell]) -> dict[str, Order]:
    """The orders of all contenders on one problem."""
    found: dict[str, Order] = {}
    for contender in dict.fromkeys(cell.contender for cell in cells):
        own = [cell for cell in cells if cell.contender == contender]
        declared = next((said for cell in own if isinstance(said := cell.notes.get("order"), (int, float))), None)
        competing = usable(own, "nfe", "error_median")
        nfe, errors = ([cell.estimates[name].median for cell in competing] for name in ("nfe", "error_median"))
        reference = [error for cell in competing if (error := cell.middle("reference_error"))]
        found[contender] = Order(declared, order(nfe, errors, max(reference, default=0.0)))
    return found
