"""`report.html` and the figures beside it, made of a folder's results."""

from __future__ import annotations

import base64
import hashlib
import mimetypes
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fm_core.bench.orders import told
from fm_core.bench.records import ESCAPED, RESULTS, Results, read
from fm_core.bench.report.choosing import Choice
from fm_core.bench.report.drawing import Place, draw
from fm_core.bench.report.paper import write_figure
from fm_core.bench.report.quantities import number, quantity, shown
from fm_core.bench.report.sections import Section, sections
from fm_core.bench.report.sources import run_facts
from fm_core.bench.report.tables import spread_text
from fm_core.bench.statistics import CONFIDENCE
from fm_core.errors import DataError
from fm_core.fit.files import replacing

__all__ = ["FIGURES", "PICTURES", "REPORT", "write_page"]

REPORT, FIGURES, PICTURES = "report.html", "figures", "pictures"
"""What the report is called, and the folders of its figures for papers and of the pictures that it shows."""

_FORMATS = {".png", ".svg", ".jpg", ".jpeg", ".gif", ".webp"}


@frozen
class Picture:
    """A picture within the page.

    Args:
        source: A data URI.
        alt: What it shows: the text of the file `NAME.txt` beside it, else its name in words.
    """

    source: str
    alt: str


def write_page(folder: Path) -> Path:
    """Writes the report and its figures; see `fm_core.bench.report.write`.

    Raises:
        DataError: If the folder holds no results, or cannot be written, as on a full disk.
    """
    results = read(folder)
    found = sections(results)
    page = _render(results, found, list(_pictures(folder / PICTURES)))
    try:
        with replacing(folder / REPORT) as (temporary,):
            temporary.write_text(page, encoding="utf-8", errors=ESCAPED)
        for chart in (chart for one in found for problem in one.problems for chart in problem.charts):
            write_figure(draw(chart), folder / FIGURES)
    except OSError as error:
        raise DataError(
            f"the report cannot be written into {folder}: {error.strerror or error}. The rows are there, in "
            f"{folder / RESULTS}; mend it, and write the report: fm bench report {folder}"
        ) from error
    return folder / REPORT


def _render(results: Results, found: list[Section], pictures: list[Picture]) -> str:
    loader = PackageLoader("fm_core.bench.report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        number=number,
        shown=shown,
        draw=draw,
        spread=spread_text,
        wins=_wins,
        path=_path,
        told=told,
    )
    environment.globals.update(quantity=quantity)
    style, script = (loader.get_source(environment, name)[0] for name in ("report.css", "report.js"))
    return environment.get_template("report.html.j2").render(
        results=results,
        results_name=RESULTS,
        sections=found,
        pictures=pictures,
        facts={name: run_facts(run) for name, run in results.runs.items()},
        counts={name: sum(record.run == name for record in results.records) for name in results.runs},
        figures=FIGURES,
        confidence=f"{CONFIDENCE:.0%}".rstrip("%"),
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _wins(choice: Choice, most: int = 2) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Contenders level with the choice: those named at once, and the rest, unless that is a single one."""
    most = len(choice.level) if len(choice.level) == most + 1 else most
    return choice.level[:most], choice.level[most:]


def _path(places: Sequence[Place]) -> str:
    """An SVG path through places."""
    return "".join(f"{'L' if k else 'M'}{x:g} {y:g}" for k, (x, y) in enumerate(places))


def _pictures(folder: Path) -> Iterator[Picture]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in _FORMATS:
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            told = path.with_suffix(".txt")
            alt = told.read_text(encoding="utf-8").strip() if told.is_file() else path.stem.replace("_", " ")
            yield Picture(f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}", alt)
