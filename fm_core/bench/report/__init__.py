"""The report: `report.html`, one file that says which contender to take, shows why, and how to repeat it.

cells       replicates put together, with estimates
choosing    the best at each budget, who is level with it, the Pareto front, who is dominated
charts      what is drawn; `drawing` lays it out for the page, `paper` writes it as files
sections    what is said of each suite: `answers`, `tables`, and `sources` of its figures
page        the file
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["write"]


def write(folder: Path) -> Path:
    """Writes `report.html` of the results that a folder holds, and its pictures as files under `figures`.

    Args:
        folder: Holds `results.jsonl`; pictures under `pictures` are taken into the page.

    Returns:
        The report: one file that needs no other and no network.

    Raises:
        DataError: If the folder holds no results.
    """
    from fm_core.bench.report.page import write_page  # matplotlib and jinja2 are not for whoever names a quantity

    return write_page(folder)
