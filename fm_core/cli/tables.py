"""Tables on the terminal; plain columns in a pipe, for `grep`, and where so many rows make frames slow."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = ["console", "print_table"]

FRAMED = 200
"""Rows up to which a table is framed: rich takes a second for a thousand."""


def console() -> Console:
    """As wide as the terminal; in a pipe wide enough that rows stay on their lines. What it cannot write is escaped."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may be no text
        sys.stdout.reconfigure(errors="backslashreplace")
    made = Console()
    return made if made.is_terminal or "COLUMNS" in os.environ else Console(width=240)


def print_table(
    to: Console, heading: Sequence[str], rows: Sequence[Sequence[str]], styles: Mapping[str, str], styled: int
) -> None:
    """Prints rows of cells.

    Args:
        to: Where to.
        heading: Names of the columns.
        rows: As many cells in each.
        styles: Style of a word.
        styled: Index of the column whose cells are such words.
    """
    if to.is_terminal and len(rows) <= FRAMED:
        table = Table(*heading)
        for row in rows:
            cells = [escape(cell) for cell in row]
            cells[styled] = f"[{styles[row[styled]]}]{row[styled]}[/]"
            table.add_row(*cells)
        to.print(table)
        return
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    for row in (heading, *rows):
        to.file.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")
