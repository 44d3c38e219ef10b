"""Our figures beside a paper's, as a table to keep: `README.md` in the folder of results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from textwrap import fill

from attrs import asdict, frozen

from fm_core.bench.papers import Paper, Published
from fm_core.bench.records import RESULTS, Record, Results, Run, read
from fm_core.fit.files import replacing

__all__ = ["FLOOR", "NPE_SLACK", "Row", "compared", "table", "write_table"]

FLOOR = "floor"
"""Contender of the rows that hold a task's floors and its W2²(q0, q1)."""

NPE_SLACK = 0.02
"""How far our NPE may lie above the published one."""


@frozen
class Row:
    """A method on a task, ours beside the paper's.

    Args:
        method, task: Of the table.
        w2, npe: Ours, one a seed.
        published: The paper's.
        floor: W2 between two fresh sets of data, one draw a seed.
    """

    method: str
    task: str
    w2: tuple[float, ...]
    npe: tuple[float, ...]
    published: Published
    floor: tuple[float, ...]

    @property
    def w2_meets(self) -> bool:
        """Whether our mean W2 is within two of the paper's standard deviations of its mean, or better."""
        return bool(self.w2) and fmean(self.w2) <= self.published.w2 + 2 * self.published.w2_std

    @property
    def npe_meets(self) -> bool:
        """Whether our mean NPE is the published one, to `NPE_SLACK`, or better."""
        return bool(self.npe) and fmean(self.npe) <= self.published.npe + NPE_SLACK


def compared(paper: Paper, records: Iterable[Record]) -> list[Row]:
    """The cells of the published table, with what the records hold of them under the paper's own budget."""
    ours = [record for record in records if record.status == "ok" and dict(record.settings) == asdict(paper.budget)]

    def values(method: str, task: str, figure: str) -> tuple[float, ...]:
        found = [record for record in ours if (record.contender, record.problem) == (method, task)]
        measured = [record.figures.get(figure) for record in sorted(found, key=lambda record: record.seed)]
        return tuple(value for value in measured if value is not None)

    return [
        Row(
            method,
            task,
            values(method, task, "w2"),
            values(method, task, "npe"),
            there,
            values(FLOOR, task, "w2"),
        )
        for method, row in paper.published.items()
        for task, there in row.items()
    ]


def table(paper: Paper, results: Results) -> str:
    """The table in Markdown, with what made it."""
    rows = compared(paper, results.of("methods"))
    return "\n".join(
        [
            f"# {paper.title}",
            "",
            fill(
                f"{paper.url}. Ours | *published*, mean ± standard deviation over seeds. The floor is W2 between two "
                f"fresh sets of {paper.budget.n:,} data points: no sampler gets below it on average. **Bold**: W2 more "
                f"than two of the paper's standard deviations above its mean, or NPE more than {NPE_SLACK:g} above it.",
                width=120,
            ),
            "",
            *_grid("W2", paper, rows, lambda row: _pair(row.w2, row.published.w2, row.published.w2_std, row.w2_meets)),
            _floors(paper, rows),
            "",
            *_grid("NPE", paper, rows, lambda row: _pair(row.npe, row.published.npe, None, row.npe_meets)),
            "",
            _missing(rows, paper),
            "",
            *([fill(paper.remark, width=120), ""] if paper.remark else []),
            "The protocol, and what had to be decided: the head of `fm_core/bench/papers.py`. Made by these commands, "
            "each of which goes on where the last one stopped:",
            "",
            *[line for run in results.runs.values() for line in _made_by(run)],
            "",
        ]
    )


def write_table(paper: Paper, folder: Path) -> None:
    """Writes `README.md` from the folder's results, if there are any."""
    if (folder / RESULTS).is_file():
        with replacing(folder / "README.md") as (path,):
            path.write_text(table(paper, read(folder)), encoding="utf-8")


def _grid(name: str, paper: Paper, rows: Sequence[Row], shown: Callable[[Row], str]) -> list[str]:
    entries = {(row.method, row.task): shown(row) for row in rows}
    cells = {method: " | ".join(entries.get((method, task), "") for task in paper.tasks) for method in paper.published}
    head = [f"| {name} | {' | '.join(paper.tasks)} |", "|---" * (len(paper.tasks) + 1) + "|"]
    return [*head, *(f"| {method} | {shown_there} |" for method, shown_there in cells.items())]


def _pair(ours: Sequence[float], theirs: float, std: float | None, meets: bool) -> str:
    published = f"*{theirs:.3f}*" if std is None else f"*{theirs:.3f} ± {std:.3f}*"
    return f"{_mean(ours) if meets or not ours else f'**{_mean(ours)}**'} \\| {published}"


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def _floors(paper: Paper, rows: Sequence[Row]) -> str:
    floors = {row.task: row.floor for row in rows}
    entries = (f"{_mean(floors[task])} ({len(floors[task])} draws)" for task in paper.tasks)
    return f"| floor | {' | '.join(entries)} |"


def _missing(rows: Sequence[Row], paper: Paper) -> str:
    seeds = {f"{row.method} on {row.task}": len(row.w2) for row in rows if row.method in paper.methods}
    fewer = [f"{cell} has {count}" for cell, count in seeds.items() if count < max(seeds.values())]
    said = f"Seeds: {max(seeds.values())}" + (f", but {', '.join(fewer)}" if fewer else "")
    others = [method for method in paper.published if method not in paper.methods]
    return f"{said}. {', '.join(others)}: published only, not built here."


def _made_by(run: Run) -> list[str]:
    machine = ", ".join(f"{name} {value}" for name, value in run.machine.items() if value is not None)
    return [
        f"- `{run.command}`, {run.started}: {machine}; torch {run.versions.get('torch', '?')}; "
        f"commit {str(run.git.get('commit', '?'))[:12]}{' with changes' if run.git.get('dirty') else ''}"
    ]
