"""Two full runs of the solvers as a page: whom to take at which budget, and whether other seeds say the same.

    fm bench solvers --seeds 0-4 --out A
    fm bench solvers --seeds 100-104 --out B
    .venv/bin/python benchmarks/solver_answers.py A B

The page is `benchmarks/results/solvers/README.md`. Its tables are of A.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

from fm_core.bench.comparing import Comparison, compare
from fm_core.bench.orders import SUITE, orders, told
from fm_core.bench.records import Results, read
from fm_core.bench.report.answers import Answers, for_solvers
from fm_core.bench.report.cells import Cell, cells, latest
from fm_core.bench.report.choosing import Choice
from fm_core.bench.report.quantities import number, quantity
from fm_core.bench.report.sources import run_facts, seeds_told
from fm_core.bench.statistics import FEWEST
from fm_core.fit.files import replacing

PAGE = Path(__file__).parent / "results" / "solvers" / "README.md"


def page(a: Results, b: Results) -> str:
    """The whole page, in Markdown."""
    measured = orders(cells(a.of(SUITE)))
    found = [cell for cell in latest(cells(a.of("solvers"))) if len(cell.records) >= FEWEST]
    plain = [cell for cell in found if "fit_s" not in cell.estimates]
    names, problems = ({getattr(cell, of) for cell in found} for of in ("contender", "problem"))
    facts = run_facts(list(a.runs.values())[-1])
    lines = [
        "# Which solver to take",
        "",
        "`fm bench solvers --seeds 0-4 --out A`, then `--seeds 100-104 --out B`, and "
        "`python benchmarks/solver_answers.py A B`",
        "",
        f"{len(names)} contenders, {len(problems)} problems; {_seeds(a)}. {facts['machine']}; {facts['versions']}; "
        f"commit {facts['git']}.",
        "",
        "A sample's error is the root mean square over dimensions of its distance to where the flow takes the same",
        "noise; a column has the least median of all that cost at most so many network calls. “×2”: the best of other",
        "libraries has twice this error, or ours has, where theirs is the least; “=”: with no difference between them.",
        *_answer(for_solvers(plain, measured)[0], "As they come"),
        *_answer(for_solvers(found, measured)[0], "With `fm.calibrate`"),
        "",
        _fitting(found),
        "",
        "## Orders",
        "",
        told(measured),
        "",
        "## Of other seeds",
        "",
        *_alike(compare(a, b)),
    ]
    return "\n".join(lines) + "\n"


def _answer(found: Answers, heading: str) -> Iterator[str]:
    yield from ("", f"## {heading}", "")
    for one in found.advice:
        cases = f"{one.times} of {one.cases} cases"
        yield f"- {found.where(one)}: **{one.contender}**, the best or level with the best in {cases}"
    yield from (
        "",
        " ".join(filter(None, (found.doubtful, found.beside_peers))),
        "",
        f"| problem | {' | '.join(found.columns)} |",
    )
    yield "|---" * (len(found.columns) + 1) + "|"
    for problem, row in found.rows:
        yield f"| `{problem}` | {' | '.join(map(_told, row))} |"


def _told(choice: Choice | None) -> str:
    if choice is None:
        return "–"
    against = "" if choice.ratio is None else f" ×{number(choice.ratio, 2)}"
    level = " =" if choice.against == "level" else ""
    return f"{choice.best.contender} {number(choice.value.median, 2)}{against}{level}"


def _fitting(found: Iterable[Cell]) -> str:
    fitted = [cell for cell in found if "fit_s" in cell.estimates]
    calls = sorted({cell.settings["nfe"] for cell in fitted})
    times = [cell.estimates["fit_s"].median for cell in fitted]
    return (
        f"`calibrated` is fitted to each problem for {', '.join(map(str, calls))} calls, on other noise;"
        f" larger budgets take the one of the most calls. A fit took {min(times):.0f} to {max(times):.0f} seconds."
    )


def _seeds(results: Results) -> str:
    """Which seeds, and of which problems."""
    seeds: dict[str, set[int]] = {}
    for record in results.of("solvers"):
        seeds.setdefault(record.problem, set()).add(record.seed)
    shared: dict[str, list[str]] = {}
    for problem, own in seeds.items():
        shared.setdefault(seeds_told(own), []).append(problem)
    most, *others = sorted(shared, key=lambda told: -len(shared[told]))
    return "; ".join([f"seeds {most}", *(f"of {', '.join(shared[told])} {told}" for told in others)])


def _alike(found: Comparison) -> Iterator[str]:
    for one in found.rankings:
        yield (
            f"- {quantity(one.figure).label}: of {one.pairs:,} pairs of contenders at one budget {one.both:,} are told "
            f"apart in both runs, {len(one.reversed)} in opposite orders (by chance up to {one.by_chance:.0f} would be)"
        )
    yield f"- {len(found.changed):,} of {len(found.changes):,} figures differ beyond noise"


def main() -> None:
    """Reads both folders and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", type=Path, metavar="A", help="folder of results")
    parser.add_argument("b", type=Path, metavar="B", help="folder of results of other seeds")
    asked = parser.parse_args()
    text = page(read(asked.a), read(asked.b))
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    with replacing(PAGE) as (path,):
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
